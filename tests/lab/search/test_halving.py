from __future__ import annotations

from service.lab.search.halving import Rung, better, fronts, in_order, rungs
from tests.lab.search.standings import clip, standing


def test_half_go_on_while_twice_as_much_is_read() -> None:
    assert rungs(31, 100, 8, 6) == [Rung(31, 8), Rung(16, 16), Rung(8, 32), Rung(6, None)]
    assert rungs(31, 20, 8, 6) == [Rung(31, 8), Rung(16, 16), Rung(8, None)]
    assert rungs(5, 100, 8, 6) == [Rung(5, None)]
    assert rungs(31, 8, 8, 6) == [Rung(31, None)]


RIGHT = standing("right", 0.0, 0.9)
MIDDLE = standing("middle", 0.5, 0.7)
QUICK = standing("quick", 2.0, 0.5)
WORSE = standing("worse", 0.6, 0.7)
WORST = standing("worst", 3.0, 0.9)


def names(some: list) -> list[str]:  # type: ignore[type-arg]
    return [one.profile.name for one in some]


def test_fronts_are_of_those_that_only_earlier_ones_beat() -> None:
    found = fronts([WORST, QUICK, WORSE, RIGHT, MIDDLE])
    assert [names(front) for front in found] == [["right", "middle", "quick"], ["worse"], ["worst"]]


def test_equals_are_beaten_by_neither() -> None:
    twin = standing("another", 0.5, 0.7)
    assert names(fronts([MIDDLE, twin])[0]) == ["another", "middle"]


def test_the_better_go_front_by_front_and_then_by_errors() -> None:
    every = [WORST, QUICK, WORSE, RIGHT, MIDDLE]
    assert names(better(every, 4, 5)) == ["right", "middle", "quick", "worse"]
    assert names(better(every, 2, 5)) == ["right", "middle"]
    assert better(every, 4, 5) == better(every[::-1], 4, 5)


def test_whoever_is_surely_beyond_the_largest_budget_goes() -> None:
    sure, unsure = standing("sure", 4.0, 0.3, half=2.5), standing("unsure", 4.0, 0.3, half=3.5)
    assert names(better([sure, unsure, RIGHT], 3, 1.0)) == ["right", "unsure"]
    assert better([sure], 3, 1.0) == []


def test_first_recordings_are_of_as_many_speakers_as_possible() -> None:
    said = {"a": 6, "b": 2, "c": 3}
    items = [clip(f"{who}{n}", speaker=who) for who, count in said.items() for n in range(count)]
    ordered = in_order(items, 1)
    assert sorted(i.name for i in ordered) == sorted(i.name for i in items)
    assert {item.speaker for item in ordered[:3]} == {"a", "b", "c"}
    assert {item.speaker for item in ordered[3:6]} == {"a", "b", "c"}
    again = in_order(items[::-1], 1)
    assert [i.name for i in again] == [i.name for i in ordered]
    assert [i.name for i in in_order(items, 2)] != [i.name for i in ordered]
