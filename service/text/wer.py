"""Words and their errors, as word error rate counts them. Without torch, for load tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from transformers.models.whisper.english_normalizer import (
    BasicTextNormalizer,
    EnglishTextNormalizer,
)

from service.languages import WRITTEN_WITHOUT_SPACES

# openai-whisper's: British spellings and the American ones that it compares by.
SPELLINGS = Path(__file__).parents[1] / "assets" / "whisper_normaliser" / "english.json"

Pair = tuple[int | None, int | None]  # places of a word in the reference and in what was said


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors of the cheapest alignment, and the words of reference they are counted over."""

    substitutions: int
    deletions: int
    insertions: int
    words: int

    @property
    def total(self) -> int:
        return self.substitutions + self.deletions + self.insertions


def words_of(text: str, language: str = "en") -> list[str]:
    """A text's words after Whisper's normaliser: the English one, or the basic one for others.

    Languages that are written without spaces are compared by character, as the Whisper paper
    does (arXiv 2212.04356, appendix C).
    """
    return _normaliser(language)(text).split()


@cache
def _normaliser(language: str) -> Callable[[str], str]:
    # Typed Any by a package without types.
    if language == "en":
        english: Callable[[str], str] = EnglishTextNormalizer(json.loads(SPELLINGS.read_text()))
        return english
    basic: Callable[[str], str] = BasicTextNormalizer(
        split_letters=language in WRITTEN_WITHOUT_SPACES
    )
    return basic


def word_errors(reference: Sequence[str], said: Sequence[str]) -> int:
    """Insertions, deletions and substitutions of the cheapest alignment."""
    return int(_costs(reference, said)[-1, -1])


def count_errors(reference: Sequence[str], said: Sequence[str]) -> Errors:
    """The errors by kind."""
    return errors_of(align(reference, said), reference, said)


def errors_of(pairs: Sequence[Pair], reference: Sequence[str], said: Sequence[str]) -> Errors:
    """The errors of an alignment, by kind."""
    wrong = sum(i is not None and j is not None and reference[i] != said[j] for i, j in pairs)
    deleted = sum(j is None for _, j in pairs)
    inserted = sum(i is None for i, _ in pairs)
    return Errors(wrong, deleted, inserted, len(reference))


def align(reference: Sequence[str], said: Sequence[str]) -> list[Pair]:
    """The cheapest alignment, in order: places in both texts, None where one has nothing.

    Memory is 4 bytes for each pair of words: 400 MB for an hour of speech.
    """
    costs = _costs(reference, said)
    pairs: list[Pair] = []
    i, j = len(reference), len(said)
    while i or j:
        here = costs[i, j]
        if i and j and here == costs[i - 1, j - 1] + (reference[i - 1] != said[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and here == costs[i - 1, j] + 1:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]


def _costs(
    reference: Sequence[str], said: Sequence[str]
) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Errors of the first i words of reference against the first j said: (i + 1, j + 1)."""
    ids = {word: number for number, word in enumerate({*reference, *said})}
    spoken = np.array([ids[word] for word in said], np.int32)
    places = np.arange(len(said) + 1, dtype=np.int32)
    costs = np.empty((len(reference) + 1, len(said) + 1), np.int32)
    costs[0] = places
    for i, word in enumerate(reference, start=1):
        above, row = costs[i - 1], costs[i]
        row[0] = i
        np.minimum(above[1:] + 1, above[:-1] + (spoken != ids[word]), out=row[1:])
        # A word said too much costs one more than the place before it, all along the row.
        row[:] = np.minimum.accumulate(row - places) + places
    return costs
