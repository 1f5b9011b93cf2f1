from __future__ import annotations

import numpy as np
import pytest

from service.lab.noise import halves, with_noise
from service.lab.packing import Item, Pcm
from service.types import SAMPLE_RATE


def hum(amplitude: float, seconds: float = 2.0, hertz: float = 300.0) -> Pcm:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.rint(amplitude * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


def hiss(amplitude: float, seconds: float, seed: int = 0) -> Pcm:
    size = round(seconds * SAMPLE_RATE)
    return np.rint(amplitude * np.random.default_rng(seed).standard_normal(size)).astype(np.int16)


SPEECH = Item("speech.wav", hum(3000), "words", "en", "x")


@pytest.mark.parametrize("snr_db", [20.0, 10.0, 5.0, 0.0])
@pytest.mark.parametrize("noise_s", [0.7, 5.0])
def test_the_ratio_is_the_one_asked_for(snr_db: float, noise_s: float) -> None:
    mixed = with_noise(SPEECH, [hiss(100, noise_s)], snr_db, seed=1)
    noise = mixed.pcm.astype(float) - SPEECH.pcm
    measured = 10 * np.log10(np.square(SPEECH.pcm.astype(float)).mean() / np.square(noise).mean())
    assert measured == pytest.approx(snr_db, abs=0.05)
    assert (mixed.name, mixed.text, mixed.speaker) == (SPEECH.name, SPEECH.text, SPEECH.speaker)


def test_an_item_has_its_own_noise_whatever_else_is_there() -> None:
    noises = [hiss(100, 5.0, seed) for seed in range(4)]
    again = with_noise(SPEECH, noises, 10, seed=1).pcm
    assert np.array_equal(again, with_noise(SPEECH, noises, 10, seed=1).pcm)
    assert not np.array_equal(again, with_noise(SPEECH, noises, 10, seed=2).pcm)
    other = Item("other.wav", SPEECH.pcm, "", "en")
    assert not np.array_equal(again, with_noise(other, noises, 10, seed=1).pcm)


def test_at_another_ratio_it_is_the_same_noise_louder() -> None:
    noises = [hiss(100, 5.0, seed) for seed in range(4)]
    ten, four = (with_noise(SPEECH, noises, snr, 1).pcm.astype(float) for snr in (10, 4))
    softer, louder = ten - SPEECH.pcm, four - SPEECH.pcm
    assert np.corrcoef(softer, louder)[0, 1] > 0.999


def test_what_would_clip_is_made_quieter_as_a_whole() -> None:
    loud = Item("loud.wav", hum(30_000), "", "en")
    mixed = with_noise(loud, [hiss(8000, 3.0)], 0, seed=1).pcm.astype(float)
    assert np.abs(mixed).max() == 32767
    assert np.count_nonzero(np.abs(mixed) == 32767) == 1
    # What is left of the hum is the hum: its share is one number.
    share = mixed @ loud.pcm.astype(float) / np.square(loud.pcm.astype(float)).sum()
    assert 0.2 < share < 0.7


def test_silent_noise_leaves_speech_as_it_is() -> None:
    silent = np.zeros(1000, np.int16)
    assert np.array_equal(with_noise(SPEECH, [silent], 0, seed=1).pcm, SPEECH.pcm)


def test_the_splits_hear_different_halves() -> None:
    clip = np.arange(11, dtype=np.int16)
    (train,), (test,) = halves([clip], "train"), halves([clip], "test")
    assert [*train, *test] == list(range(11))
    assert abs(len(train) - len(test)) <= 1
