"""Messages of PCM and opus -> 16 kHz mono, and what is refused."""

from __future__ import annotations

import av
import numpy as np
import pytest

from service.audio.packets import MAX_OPUS_BYTES
from service.audio.stream import open_stream
from service.errors import InvalidAudio
from service.types import Samples
from tests.api.live_client import opus_packets

from .files import RATE, silence, speech, tone


def as_pcm(samples: Samples, channels: int = 1) -> bytes:
    values = (samples * 32767).astype("<i2")
    return np.repeat(values[:, None], channels, axis=1).tobytes()


def test_pcm_is_what_was_sent() -> None:
    stream, sound = open_stream("pcm_s16le", RATE, 1), speech()
    heard = stream.decode(as_pcm(sound))
    assert heard.dtype == np.float32
    np.testing.assert_allclose(heard, sound, atol=2e-4)


def test_stereo_is_averaged() -> None:
    left, right = tone(0.1), silence(0.1)
    both = np.stack([left, right], axis=1)
    heard = open_stream("pcm_s16le", RATE, 2).decode((both * 32767).astype("<i2").tobytes())
    np.testing.assert_allclose(heard, left / 2, atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("step_s", [0.02, 0.5])
def test_other_rates_are_resampled_across_messages(rate: int, step_s: float) -> None:
    """As good as in one piece: no click where messages meet."""
    audio = as_pcm(tone(2, rate))
    stream, step = open_stream("pcm_s16le", rate, 1), 2 * round(step_s * rate)
    heard = np.concatenate(
        [stream.decode(audio[at : at + step]) for at in range(0, len(audio), step)]
    )
    assert 0 <= 2 * RATE - len(heard) < 0.05 * RATE
    middle = slice(RATE // 2, RATE)
    np.testing.assert_allclose(heard[middle], tone(2)[middle], atol=5e-3)


@pytest.mark.parametrize(
    ("encoding", "rate"), [("pcm_s16le", 24_000), ("pcm_s16le", RATE), ("pcmu", 8_000)]
)
def test_nothing_is_held_back_in_the_end(encoding: str, rate: int) -> None:
    stream = open_stream(encoding, rate, 1)
    second = bytes(rate * (1 if encoding == "pcmu" else 2))
    for _ in range(2):
        heard, held = len(stream.decode(second)), stream.num_held
        assert heard + held == RATE
        assert (held == 0) == (rate == RATE)
        assert (len(stream.rest()), stream.num_held) == (held, 0)


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_g711_is_what_an_encoder_made_of_the_sound(law: str) -> None:
    """Its steps are a sixteenth of the sample or less, and its quiet ones are fine."""
    sound = tone(1, 8_000)
    stream = open_stream("pcmu" if law == "mulaw" else "pcma", 0, 1)
    message = as_g711(sound, law)
    parts = stream.split(message * 2)
    assert [len(part) for part in parts] == [8_000, 8_000]
    heard = np.concatenate([stream.decode(message), stream.rest()])
    expected = open_stream("pcm_s16le", 8_000, 1)
    plain = np.concatenate([expected.decode(as_pcm(sound)), expected.rest()])
    assert len(heard) == len(plain) == RATE
    off = np.abs(heard - plain)
    assert off.max() < np.abs(plain).max() / 16
    assert np.sqrt(np.mean(off**2)) < 0.03 * np.sqrt(np.mean(plain**2))
    stream.check(b"any bytes")


def test_a_message_is_split_into_seconds() -> None:
    stream = open_stream("pcm_s16le", RATE, 2)
    message = as_pcm(speech(), channels=2)
    parts = stream.split(message)
    assert b"".join(parts) == message
    assert max(map(len, parts)) == 4 * RATE
    assert sum(len(stream.decode(part)) for part in parts) == len(speech())


def as_g711(samples: Samples, law: str) -> bytes:
    encoder = av.CodecContext.create(f"pcm_{law}", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 8_000, "mono", "s16"
    values = (samples * 32767).astype("<i2")[None]
    frame = av.AudioFrame.from_ndarray(values, "s16", "mono")
    frame.sample_rate = 8_000
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))


@pytest.mark.parametrize(("channels", "size", "step"), [(1, 641, 2), (2, 642, 4)])
def test_part_of_a_sample_is_refused(channels: int, size: int, step: int) -> None:
    with pytest.raises(InvalidAudio, match=f"{size} bytes.*multiples of {step} bytes"):
        open_stream("pcm_s16le", RATE, channels).check(bytes(size))


@pytest.mark.parametrize(
    ("head", "name"), [(b"OggS", "an Ogg page"), (b"\x1aE\xdf\xa3", "a WebM file")]
)
def test_a_container_is_named(head: bytes, name: str) -> None:
    with pytest.raises(InvalidAudio, match=f"{name}.*without a container"):
        open_stream("opus", RATE, 1).check(head + bytes(100))


@pytest.mark.parametrize("size", [0, MAX_OPUS_BYTES + 1])
def test_a_size_that_no_packet_has(size: int) -> None:
    with pytest.raises(InvalidAudio, match="not an opus packet"):
        open_stream("opus", RATE, 1).decode(bytes(size))


def test_garbage_is_refused_or_heard_and_harms_no_packet_after_it() -> None:
    rng = np.random.default_rng(0)
    stream, num_refused = open_stream("opus", 48_000, 1), 0
    for _ in range(300):
        try:
            stream.decode(rng.bytes(int(rng.integers(1, 400))))
        except InvalidAudio:
            num_refused += 1
    assert 0 < num_refused < 300
    for packet in opus_packets(as_pcm(speech())):
        heard = stream.decode(packet)
    assert len(heard) <= 960


def test_opus_is_heard_as_it_was_said() -> None:
    sound = speech()
    stream = open_stream("opus", 48_000, 1)
    heard = np.concatenate([stream.decode(packet) for packet in opus_packets(as_pcm(sound))])
    assert abs(len(heard) - len(sound)) < 0.05 * RATE
    # The codec delays by 6.5 ms and keeps no phase: envelopes of 20 ms are what can be compared.
    ours, theirs = (
        np.sqrt(np.square(one[: 80 * 320].reshape(-1, 320)).mean(axis=1)) for one in (heard, sound)
    )
    assert np.corrcoef(ours, theirs)[0, 1] > 0.97
