"""Where two texts of one recording differ, as marks on their own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.text.wer import Pair, align, words_of
from service.types import Word

SAME, CHANGED, MISSING, ADDED = "", "changed", "missing", "added"

Marks = tuple[str, ...]


def compare(ours: Sequence[Word], others: Sequence[Word], language: str) -> tuple[Marks, Marks]:
    """A mark for each of our words, and for each of the others'.

    Words are compared after Whisper's normaliser. It joins and parts words ("twenty five", "25"),
    so a stretch that is the same as a whole is no difference. What is left of a stretch is
    `changed` where both have a word, `added` where only ours is, `missing` where only theirs is.
    """
    mine = [_key(word, language) for word in ours]
    theirs = [_key(word, language) for word in others]
    # What the normaliser leaves out ("um") is nothing that texts differ in.
    spoken = [i for i, key in enumerate(mine) if key]
    said = [j for j, key in enumerate(theirs) if key]
    our_marks, their_marks = [SAME] * len(mine), [SAME] * len(theirs)
    pairs = align([mine[i] for i in spoken], [theirs[j] for j in said])
    placed = [(_at(spoken, i), _at(said, j)) for i, j in pairs]
    for stretch in _unlike(placed, mine, theirs):
        left = [i for i, _ in stretch if i is not None]
        right = [j for _, j in stretch if j is not None]
        if _whole(ours, left, language) == _whole(others, right, language):
            continue
        for i, j in stretch:
            if i is not None:
                our_marks[i] = ADDED if j is None else CHANGED
            if j is not None:
                their_marks[j] = MISSING if i is None else CHANGED
    return tuple(our_marks), tuple(their_marks)


def _key(word: Word, language: str) -> str:
    return " ".join(words_of(word.text, language))


def _at(places: Sequence[int], number: int | None) -> int | None:
    return None if number is None else places[number]


def _unlike(
    pairs: Sequence[Pair], mine: Sequence[str], theirs: Sequence[str]
) -> Iterator[list[Pair]]:
    """Stretches of the alignment in which nothing is the same."""
    stretch: list[Pair] = []
    for i, j in pairs:
        if i is None or j is None or mine[i] != theirs[j]:
            stretch.append((i, j))
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _whole(words: Sequence[Word], places: Sequence[int], language: str) -> list[str]:
    return words_of(" ".join(words[place].text.strip() for place in places), language)
