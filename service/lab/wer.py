"""Words and their errors, as word error rate counts them. Without torch, for load tests."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

_normalise = EnglishTextNormalizer({})


def words_of(text: str) -> list[str]:
    """A text's words after Whisper's normaliser.

    The normaliser writes "four two" as "42"; each digit is then a word again, or a string of
    ten digits would count as one.
    """
    return re.sub(r"(\d)(?=\d)", r"\1 ", _normalise(text)).split()


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Insertions, deletions and substitutions of the cheapest alignment."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, start=1):
        previous, row[0] = row[0], i
        for j, said in enumerate(hypothesis, start=1):
            cost = min(row[j] + 1, row[j - 1] + 1, previous + (expected != said))
            previous, row[j] = row[j], cost
    return row[-1]
