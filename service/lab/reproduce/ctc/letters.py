"""Text as the letters that a CTC head tells apart, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable

BLANK = 0
LETTERS = " 'abcdefghijklmnopqrstuvwxyz"
NUM_LABELS = len(LETTERS) + 1
OTHER = re.compile(r"[^a-z' ]+")
LONELY = re.compile(r"(?<![a-z])'+|'+(?![a-z])")  # a quotation mark, not an apostrophe


def spelled(text: str) -> str:
    """In lower case, of letters, apostrophes inside words and single spaces alone.

    Not Whisper's normaliser, which writes numbers as figures: nobody hears a figure. Words are
    counted after it all the same, on both sides.
    """
    plain = OTHER.sub(" ", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return " ".join(LONELY.sub(" ", plain).split())


def can_be_spelled(text: str) -> bool:
    """Whether its letters say all that is said: a figure says nothing of them."""
    return not any(char.isdigit() for char in text)


def labels_of(text: str) -> list[int]:
    """Of a spelled text: 1 on, as 0 is the blank."""
    return [LETTERS.index(char) + 1 for char in text]


def text_of(labels: Iterable[int]) -> str:
    """Spaces at either end, and in a row, count as none and one."""
    return " ".join("".join(LETTERS[label - 1] for label in labels).split())
