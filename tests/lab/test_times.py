from __future__ import annotations

import pytest

from service.lab.runs import Answer
from service.lab.times import compare
from service.types import Segment, Word


def answer(*words: tuple[str, float, float]) -> Answer:
    timed = tuple(Word(start, end, f" {text}", 1.0) for text, start, end in words)
    segment = Segment(0, 0.0, 9.0, "", (), 0.0, 0.0, 1.0, 0.0, timed)
    return Answer("", (segment,))


def test_words_that_both_have_are_compared() -> None:
    dense = answer(("Mister", 0.0, 0.5), ("Brown's", 0.5, 1.0), ("coat.", 1.0, 2.0))
    other = answer(("mister", 0.25, 0.5), ("a", 0.5, 0.6), ("coat", 1.25, 1.95))
    figures = compare([dense], [other], ["en"]).summary()
    assert (figures["words"], figures["matched"]) == (3, 2)
    assert figures["start_mean_s"] == pytest.approx(0.25)
    assert figures["end_median_s"] == pytest.approx(0.025)
    assert figures["end_within_0.1_s"] == 1
    assert figures["start_within_0.1_s"] == 0


def test_answers_are_compared_one_by_one() -> None:
    first, second = answer(("one", 0, 1)), answer(("two", 0, 1))
    assert compare([first, second], [second, first], ["en", "en"]).summary() == {
        "words": 2,
        "matched": 0,
    }


def test_the_same_words_are_where_they_are() -> None:
    same = answer(("one", 0, 1), ("one", 1, 2))
    figures = compare([same], [same], ["en"]).summary()
    assert (figures["matched"], figures["start_p90_s"]) == (2, 0)
