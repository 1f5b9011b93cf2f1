"""Speech sets small enough to train on in a test: a digit is a chord of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from service.lab.curriculum import DIGITS_FIRST, Curriculum
from service.lab.dataset import Recipe
from service.lab.recipe import Material
from service.lab.sources import DigitStrings, Source, Span
from service.lab.speech_set import SpeechSet
from service.lab.vocabulary import DIGITS, train_vocabulary
from service.types import SAMPLE_RATE


def chord(text: str, voice: int) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """0.3 s for each word, its pitch by the digit and the voice."""
    time_s = np.arange(int(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
    words = [DIGITS.index(word) if word in DIGITS else 0 for word in text.split()]
    tones = [np.sin(2 * np.pi * (200 + 150 * d + 20 * voice) * time_s) for d in words]
    pcm: np.ndarray[tuple[int], np.dtype[np.int16]]
    pcm = np.rint(np.concatenate(tones) * 12_000).astype(np.int16)
    return pcm


def speech_set(folder: Path, texts: Sequence[str], voices: int = 2) -> SpeechSet:
    """Every text in every voice, mapped from a file as a real set is."""
    pairs = [(text, voice) for voice in range(voices) for text in texts]
    clips = [chord(*pair) for pair in pairs]
    folder.mkdir(parents=True)
    np.concatenate(clips).tofile(folder / "samples.i16")
    lengths = np.array([len(clip) for clip in clips])
    return SpeechSet(
        samples=np.memmap(folder / "samples.i16", np.int16, "r"),
        offsets=np.concatenate([[0], np.cumsum(lengths)[:-1]]),
        lengths=lengths,
        texts=tuple(text for text, _ in pairs),
        voices=tuple(f"voice-{voice}" for _, voice in pairs),
    )


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("speech")
    connected = ["one two", "three four five", "nine", "zero seven"]
    return Material(
        digits=speech_set(folder / "digits", DIGITS),
        synthetic=speech_set(folder / "synthetic", [*connected, *DIGITS]),
        noises=speech_set(folder / "noises", ["noise " * 20]),
    )


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_vocabulary(["a line of a book", "and another one"], 300)


def recipe_of(
    speech: Material,
    tokenizer: Tokenizer,
    *,
    num_steps: int,
    seconds: float,
    seed: int,
    spans: list[list[Span]] | None = None,
    curriculum: Curriculum = DIGITS_FIRST,
    sentences: Source | None = None,
) -> Recipe:
    """Batches of digit strings, and of sentences where a source of them is given."""
    strings = DigitStrings(speech.digits, speech.synthetic, spans)
    return Recipe(
        strings,
        sentences,
        speech.noises,
        tokenizer,
        curriculum,
        num_steps=num_steps,
        seconds=seconds,
        seed=seed,
    )
