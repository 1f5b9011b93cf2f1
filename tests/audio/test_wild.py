"""Samples that are no sound do not silence the rest."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from service.audio.decode import decode, decode_channels
from service.errors import InvalidAudio
from service.types import Audio, Samples

from .files import by_soundfile, noise, of, silence, tone

RATES = (16_000, 44_100)


def of_floats(sound: Samples, rate: int = 16_000, subtype: str = "FLOAT") -> Audio:
    return decode(io.BytesIO(by_soundfile(sound, "WAV", subtype, rate)), 600)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e10])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_a_sample_that_is_no_number_is_silent_and_named(
    value: float, rate: int, subtype: str
) -> None:
    sound = tone(8, rate)
    expected = of_floats(sound, rate, subtype)
    at = 5 * rate + 7
    sound[at] = value
    audio = of_floats(sound, rate, subtype)
    np.testing.assert_allclose(audio.samples, expected.samples, atol=0.6)
    quiet = np.abs(audio.samples - expected.samples) > 0.001
    assert quiet.mean() < 0.01
    (loss,) = audio.losses
    assert loss.code == "damaged_audio"
    assert loss.start == pytest.approx(at / rate, abs=0.001)
    assert loss.end == pytest.approx((at + 1) / rate, abs=0.001)


def test_stretches_are_named_one_by_one_but_not_without_end() -> None:
    sound = tone(100)
    sound[10 * 16_000 : 10 * 16_000 + 80] = np.nan
    sound[10 * 16_000 + 8_000] = np.nan
    sound[50 * 16_000] = np.inf
    first, second = of_floats(sound).losses
    assert (first.start, first.end) == pytest.approx((10, 10.5), abs=0.001)
    assert second.start == 50
    sound[:: 2 * 16_000] = np.nan
    losses = of_floats(sound).losses
    assert len(losses) == 20
    assert losses[0].start == 0
    assert losses[-1].end == pytest.approx(98, abs=0.001)


@pytest.mark.parametrize("share", [0.02, 1.0])
@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_much_of_it_is_no_audio(share: float, value: float) -> None:
    sound = tone(4)
    sound[: round(share * len(sound))] = value
    with pytest.raises(InvalidAudio, match="not numbers"):
        of_floats(sound)


@pytest.mark.parametrize("value", [50.0, 1e3, 1e8])
@pytest.mark.parametrize("rate", RATES)
def test_a_few_wild_samples_are_clipped(value: float, rate: int) -> None:
    sound = 0.2 * noise(6) if rate == 16_000 else 0.2 * tone(6, rate)
    loud = float(np.sqrt(np.square(of_floats(sound, rate).samples).mean()))
    sound[rate] = value
    sound[3 * rate : 3 * rate + 4] = -value
    audio = of_floats(sound, rate)
    assert np.sqrt(np.square(audio.samples).mean()) > loud / 4
    assert np.abs(audio.samples).max() <= 1
    assert not audio.losses


@pytest.mark.parametrize("scale", [1.5, 100.0, 32_768.0, 2.0**31])
def test_another_scale_is_turned_down_as_a_whole(scale: float) -> None:
    sound = np.concatenate([silence(6), noise(0.5), silence(6)])
    np.testing.assert_allclose(
        of_floats(np.float32(scale) * sound).samples,
        sound / max(np.abs(sound).max(), 1 / scale),
        atol=1e-5,
    )


def test_a_wild_sample_on_another_scale() -> None:
    sound = 3_000 * noise(6, rms=1.0)
    expected = sound / np.abs(sound).max()
    sound[70_000] = 1e9
    samples = of_floats(sound).samples
    ratio = np.delete(samples, 70_000)[100] / np.delete(expected, 70_000)[100]
    assert 0.1 < ratio <= 1


def test_a_wild_channel_is_left_out_of_the_mix_for_that_moment() -> None:
    both = np.stack([tone(3), tone(3)], axis=1)
    both[16_000, 1] = np.nan
    buffer = io.BytesIO()
    soundfile.write(buffer, both, 16_000, format="WAV", subtype="FLOAT")
    samples = of(buffer.getvalue())
    np.testing.assert_allclose(np.delete(samples, 16_000), np.delete(tone(3), 16_000), atol=1e-6)
    assert samples[16_000] == pytest.approx(tone(3)[16_000] / 2, abs=1e-6)
    left, right = decode_channels(io.BytesIO(buffer.getvalue()), 60)
    np.testing.assert_array_equal(left.samples, tone(3))
    assert right.samples[16_000] == 0
    assert left.losses == right.losses != ()
