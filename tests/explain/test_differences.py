from __future__ import annotations

import pytest

from service.explain.differences import ADDED, CHANGED, MISSING, SAME, compare
from service.types import Word


def said(text: str) -> list[Word]:
    return [Word(i, i + 1, f" {word}", 1.0) for i, word in enumerate(text.split())]


def marks(ours: str, dense: str, language: str = "en") -> tuple[dict[str, str], dict[str, str]]:
    """The words that are marked, on both sides."""
    mine, theirs = compare(said(ours), said(dense), language)
    assert (len(mine), len(theirs)) == (len(ours.split()), len(dense.split()))
    return _only_marked(ours, mine), _only_marked(dense, theirs)


def _only_marked(text: str, given: tuple[str, ...]) -> dict[str, str]:
    return {word: mark for word, mark in zip(text.split(), given, strict=True) if mark != SAME}


@pytest.mark.parametrize(
    ("ours", "dense"),
    [
        ("Mr. Quilter, the apostle!", "mister quilter the apostle"),
        ("It's 25 o'clock", "it is twenty five o'clock"),
        ("a colour um of roses", "A color of, uh, roses."),
        ("we can't go", "we can not go"),
        ("", "um"),
    ],
)
def test_what_the_normaliser_makes_the_same_is_the_same(ours: str, dense: str) -> None:
    assert marks(ours, dense) == ({}, {})


def test_a_word_in_anothers_place_is_changed_on_both_sides() -> None:
    ours, dense = marks("with roast beef, looming", "with Rose beef looming")
    assert (ours, dense) == ({"roast": CHANGED}, {"Rose": CHANGED})


def test_words_of_one_side_alone() -> None:
    assert marks("and the next man", "and next man") == ({"the": ADDED}, {})
    assert marks("and man", "and the next man") == ({}, {"the": MISSING, "next": MISSING})
    assert marks("", "all gone") == ({}, {"all": MISSING, "gone": MISSING})
    assert marks("Thank you", "um") == ({"Thank": ADDED, "you": ADDED}, {})


def test_a_difference_beside_one_that_is_none() -> None:
    """The stretch as a whole is another, but words of it that are the same part it."""
    ours, dense = marks("twenty five red cats", "25 red dogs")
    assert (ours, dense) == ({"cats": CHANGED}, {"dogs": CHANGED})


def test_what_the_normaliser_leaves_out_is_no_part_of_a_difference() -> None:
    assert marks("red um cats", "red dogs") == ({"cats": CHANGED}, {"dogs": CHANGED})
    assert marks("red cats", "red uh dogs") == ({"cats": CHANGED}, {"dogs": CHANGED})


def test_languages_without_spaces_are_compared_by_character() -> None:
    first = [Word(0, 1, "客観的", 1.0), Word(1, 2, "実在の", 1.0)]
    second = [Word(0, 1, "客観", 1.0), Word(1, 2, "的実在", 1.0), Word(2, 3, "の。", 1.0)]
    assert compare(first, second, "ja") == ((SAME,) * 2, (SAME,) * 3)
