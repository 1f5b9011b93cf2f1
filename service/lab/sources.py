"""Where training windows take their speech from: a source draws one utterance at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from service.lab import augment
from service.lab.speech_set import SpeechSet
from service.types import SAMPLE_RATE, Samples

Span = tuple[float, float]
NOWHERE = (-1.0, -1.0)


@dataclass(frozen=True, slots=True)
class Phrase:
    """What becomes one timed segment: its words, its times, and where each word is, in seconds.

    A word whose place is not known is NOWHERE.
    """

    words: tuple[str, ...]
    start: float
    end: float
    spans: tuple[Span, ...]

    def shifted(self, by_s: float) -> Phrase:
        spans = tuple(s if s == NOWHERE else (s[0] + by_s, s[1] + by_s) for s in self.spans)
        return replace(self, start=self.start + by_s, end=self.end + by_s, spans=spans)


@dataclass(frozen=True, slots=True)
class Utterance:
    """Speech of one voice, unperturbed, and its phrases in time order."""

    samples: Samples
    phrases: tuple[Phrase, ...]


class Source(Protocol):
    """Draws utterances; the same generator state gives the same one."""

    def draw(self, rng: np.random.Generator, least: int, most: int) -> Utterance:
        """An utterance of `least` to `most` words, or of its shortest where it has none."""


class DigitStrings:
    """Strings of digits: real and synthetic ones put together from single digits, and synthetic
    ones said in one breath. Every digit is a phrase (docs/adr/0002).

    `spans`: where the words of every synthetic string are; until that is known, strings are put
    together only.
    """

    def __init__(
        self, digits: SpeechSet, synthetic: SpeechSet, spans: list[list[Span]] | None = None
    ) -> None:
        self.digits, self.synthetic, self.spans = digits, synthetic, spans
        self.by_voice = _isolated_by_voice(digits)
        self.synthetic_by_voice = _isolated_by_voice(synthetic)
        sizes = np.array([len(text.split()) for text in synthetic.texts])
        by_size = np.argsort(sizes, kind="stable")
        self.connected = by_size[sizes[by_size] > 1]
        self.connected_sizes = sizes[self.connected]

    def draw(self, rng: np.random.Generator, least: int, most: int) -> Utterance:
        """A string by one voice: real, or synthetic in one breath or digit by digit."""
        draw = rng.random()
        if draw < 0.35 and most > 1 and self.spans is not None:
            fitting = self.connected[: int(np.searchsorted(self.connected_sizes, most, "right"))]
            index = int(rng.choice(fitting))
            factor = rng.uniform(0.85, 1.18)
            samples = augment.change_speed(self.synthetic.get(index), factor)
            at = [(a / factor, b / factor) for a, b in self.spans[index]]
            return _one_by_one(samples, self.synthetic.texts[index].split(), at)
        real = draw < 0.72
        source = self.digits if real else self.synthetic
        voices = self.by_voice if real else self.synthetic_by_voice
        clips = voices[int(rng.integers(len(voices)))]
        chosen = rng.choice(clips, int(rng.integers(least, most + 1)))
        pause_s = rng.choice([0.03, 0.1, 0.25])
        speed = rng.uniform(0.8, 1.24) if real else rng.uniform(0.85, 1.18)
        pieces: list[Samples] = []
        for index in chosen:
            clip = source.get(int(index)) * np.float32(10 ** (rng.uniform(-3, 3) / 20))
            factor = speed * rng.uniform(0.96, 1.04)
            gap = min(rng.exponential(pause_s), 0.8)
            pieces += [augment.change_speed(clip, factor), _silence(gap)]
        ends = np.cumsum([len(piece) for piece in pieces]) / SAMPLE_RATE
        starts = [0.0, *ends[1::2]]
        at = [(float(a), float(b)) for a, b in zip(starts, ends[::2], strict=False)]
        words = [source.texts[int(i)] for i in chosen]
        return _one_by_one(np.concatenate(pieces[:-1]), words, at)


class Sentences:
    """Recordings of sentences, each one phrase.

    Of each set: its share of the draws, and where its words are, or None where nobody knows yet.
    """

    def __init__(self, sets: Sequence[tuple[SpeechSet, float, list[list[Span]] | None]]) -> None:
        self.sets = [speech for speech, _, _ in sets]
        self.spans = [spans for _, _, spans in sets]
        shares = np.array([share for _, share, _ in sets])
        self.shares = shares / shares.sum()
        sizes = [np.array([len(text.split()) for text in speech.texts]) for speech in self.sets]
        self.by_size = [np.argsort(each, kind="stable") for each in sizes]
        self.sizes = [each[order] for each, order in zip(sizes, self.by_size, strict=True)]

    def draw(self, rng: np.random.Generator, least: int, most: int) -> Utterance:
        """A sentence of `least` to `most` words, or of its set's shortest where it has none."""
        number = int(rng.choice(len(self.sets), p=self.shares))
        sizes, some = self.sizes[number], self.sets[number]
        first = int(np.searchsorted(sizes, least, "left"))
        last = max(int(np.searchsorted(sizes, most, "right")), 1)
        index = int(self.by_size[number][int(rng.integers(min(first, last - 1), last))])
        factor = rng.uniform(0.88, 1.14)
        samples = augment.change_speed(some.get(index), factor)
        words = tuple(some.texts[index].split())
        spans = (NOWHERE,) * len(words)
        known = self.spans[number]
        if known is not None:
            spans = tuple((a / factor, b / factor) for a, b in known[index])
        return Utterance(samples, (Phrase(words, 0.0, len(samples) / SAMPLE_RATE, spans),))


def _one_by_one(samples: Samples, words: Sequence[str], at: Sequence[Span]) -> Utterance:
    phrases = (Phrase((word,), *span, (span,)) for word, span in zip(words, at, strict=True))
    return Utterance(samples, tuple(phrases))


def _silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def _isolated_by_voice(speech: SpeechSet) -> list[list[int]]:
    voices: dict[str, list[int]] = defaultdict(list)
    for index, (voice, text) in enumerate(zip(speech.voices, speech.texts, strict=True)):
        if " " not in text:
            voices[voice].append(index)
    return list(voices.values())
