"""What the synthesisers are given to say besides digit strings: books, numbers, dates, spelling.

Transcripts are plain: lower-case words, apostrophes, nothing else. That is what LibriSpeech's
transcripts can be brought to, and a model this small has no room for a second way of writing.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence
from pathlib import Path

from service.errors import ConfigError

HELD_OUT_BOOK = "wizard-of-oz"  # its sentences are for the test split alone
MAX_WORDS = 32

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"),
    *("tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth"),
    *("seventeenth", "eighteenth", "nineteenth", "twentieth", "twenty first", "twenty second"),
    *("twenty third", "twenty fourth", "twenty fifth", "twenty sixth", "twenty seventh"),
    *("twenty eighth", "twenty ninth", "thirtieth", "thirty first"),
)
_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september"),
    *("october", "november", "december"),
)


def plain(text: str) -> str:
    """Lower-case words with apostrophes inside them, one space apart."""
    text = text.lower().replace("\u2019", "'").replace("&", " and ")
    words = re.sub(r"[^a-z' ]", " ", text).split()
    return " ".join(word for word in (w.strip("'") for w in words) if word)


def can_be_read(text: str) -> bool:
    """Whether `plain` keeps all that is said: no numerals, no abbreviations, no other script."""
    return text.isascii() and not re.search(r"\d|[@#$%^*_+=<>/\\|~\[\]{}]|\b(Mr|Mrs|Dr|St)\b", text)


def read_books(folder: Path, split: str) -> list[str]:
    """The sentences of a split's books, as written, that can be read and are not too long.

    Raises ConfigError where `folder` has no books for the split.
    """
    books = [
        p for p in sorted(folder.glob("*.txt")) if (p.stem == HELD_OUT_BOOK) == (split == "test")
    ]
    lines = [line.strip() for book in books for line in book.read_text().splitlines()]
    sentences = [
        line for line in lines if can_be_read(line) and 2 <= len(plain(line).split()) <= MAX_WORDS
    ]
    if not sentences:
        raise ConfigError(f"{folder}: no *.txt with sentences for the {split} split")
    return sentences


def draw_sentence(draw: random.Random, sentences: Sequence[str]) -> tuple[str, str]:
    """A transcript, and the prompt that has it said: mostly a sentence of a book."""
    kind = draw.random()
    if kind < 0.82:
        prompt = _cleaned(draw.choice(sentences))
    elif kind < 0.90:
        prompt = ", ".join(number(draw.randint(0, 10 ** draw.randint(2, 6))) for _ in range(2))
    elif kind < 0.95:
        prompt = _date(draw)
    else:
        prompt = " ".join(draw.sample(_words_of(draw.choice(sentences)), k=1))
        prompt = f"{prompt}, {', '.join(prompt.replace(chr(39), ''))}"
    return plain(prompt), prompt


def number(value: int) -> str:
    """An integer below a million in words, as read aloud."""
    if value < 20:
        return _ONES[value]
    if value < 100:
        tens, ones = divmod(value, 10)
        return _TENS[tens] + (f" {_ONES[ones]}" if ones else "")
    if value < 1000:
        hundreds, rest = divmod(value, 100)
        return f"{_ONES[hundreds]} hundred" + (f" and {number(rest)}" if rest else "")
    thousands, rest = divmod(value, 1000)
    return f"{number(thousands)} thousand" + (f" {number(rest)}" if rest else "")


def _date(draw: random.Random) -> str:
    day, month = draw.choice(_ORDINALS), draw.choice(_MONTHS)
    century, years = draw.choice(("eighteen", "nineteen", "twenty")), draw.randint(10, 99)
    return f"the {day} of {month}, {century} {number(years)}"


def _words_of(sentence: str) -> list[str]:
    # Letters of one-letter words are said alike either way; spelling them teaches nothing.
    return [word for word in plain(sentence).split() if 3 <= len(word) <= 9] or ["winnow"]


def _cleaned(sentence: str) -> str:
    """Without what a synthesiser would take for markup or end its quoted string at."""
    kept = string.ascii_letters + " ',.;:?!-"
    return " ".join("".join(c if c in kept else " " for c in sentence).split())
