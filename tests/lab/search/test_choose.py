from __future__ import annotations

from dataclasses import replace

import pytest

from service.lab.search.choose import choose, clearly_faster, ratios, speed, upper_points
from service.lab.search.halving import Plan, Standing
from tests.lab.search.standings import estimate, standing

WORDS = {"read": 10_000}
SLOW = standing("slow", 0.0, 0.9, half=0.1)
MIDDLE = standing("middle", 0.2, 0.7, half=0.2)
QUICK = standing("quick", 0.6, 0.5, half=0.3)
ALL = [SLOW, MIDDLE, QUICK]
# Of two rounds; by the clock the middle one is the fastest.
ROUNDS = [
    {"dense": 10.0, "slow": 8.0, "middle": 4.0, "quick": 5.0},
    {"dense": 20.0, "slow": 18.0, "middle": 9.0, "quick": 9.5},
]


def chosen(plan: Plan, standings: list[Standing] = ALL) -> list[str | None]:
    return [choice.chosen for choice in choose(standings, ROUNDS, WORDS, plan)]


def test_the_least_work_whose_whole_interval_is_within_the_budget() -> None:
    assert chosen(Plan(budgets=(0.2, 0.5, 1.0))) == ["slow", "middle", "quick"]
    assert chosen(Plan(budgets=(0.399,))) == ["slow"]
    assert chosen(Plan(budgets=(0.2, 0.5, 1.0)), ALL[::-1]) == ["slow", "middle", "quick"]


def test_or_the_fastest_by_the_clock() -> None:
    assert chosen(Plan(budgets=(0.2, 0.5, 1.0), by_clock=True)) == ["slow", "middle", "middle"]


def test_of_equal_work_the_one_with_fewer_errors() -> None:
    other = standing("a", 0.3, 0.7, half=0.1)
    assert chosen(Plan(budgets=(0.5,)), [other, MIDDLE]) == ["middle"]


def test_where_nobody_keeps_to_it_the_nearest_is_named() -> None:
    (choice,) = choose([MIDDLE, QUICK], ROUNDS, WORDS, Plan(budgets=(0.3,)))
    assert choice.chosen is None
    assert "none of the 2 that were tried" in choice.why
    assert "middle is nearest, +0.20 points, at most +0.40" in choice.why
    (choice,) = choose([], [], WORDS, Plan(budgets=(0.3,)))
    assert "every candidate is too far from dense" in choice.why


def test_what_is_no_faster_than_dense_is_not_chosen() -> None:
    heavy = standing("heavy", 0.0, 1.0)
    (choice,) = choose([heavy], ROUNDS, WORDS, Plan(budgets=(0.5,)))
    assert choice.chosen is None
    assert choice.why == "no faster than dense, although within the budget: heavy"


def test_too_little_speech_shows_nothing_however_few_the_errors() -> None:
    same = standing("same", 0.0, 0.5)
    (small, large) = choose([same], [], {"read": 800}, Plan(budgets=(0.2, 0.5)))
    assert small.chosen is None
    assert "there are 800 words" in small.why
    assert "takes 1,845 to show that" in small.why
    assert large.chosen == "same"


def test_a_budget_may_have_to_hold_in_each_domain() -> None:
    uneven = replace(SLOW, by_domain={"read": estimate(0.0), "told": estimate(0.4, 0.3)})
    assert upper_points(uneven, each=False) == pytest.approx(0.1)
    assert upper_points(uneven, each=True) == pytest.approx(0.7)
    words = {"read": 9_000, "told": 900, "noise": 0}
    plan = Plan(budgets=(0.2, 0.5, 1.0))
    assert [c.chosen for c in choose([uneven], [], words, plan)] == ["slow"] * 3
    each = choose([uneven], [], words, replace(plan, each=True))
    assert [c.chosen for c in each] == [None, None, "slow"]
    assert "the smallest domain has 900 words" in each[0].why


def test_speed_is_compared_within_each_round() -> None:
    assert ratios(ROUNDS, "quick") == pytest.approx([2.0, 20 / 9.5])
    assert speed(ROUNDS, "quick") == pytest.approx((2.0 + 20 / 9.5) / 2)


def test_who_was_faster_in_every_round_is_told() -> None:
    plan = Plan(budgets=(1.0,))
    (choice,) = choose(ALL, ROUNDS, WORDS, plan)
    assert clearly_faster(choice, ALL, ROUNDS, plan) == "middle"
    level = [ROUNDS[0], {**ROUNDS[1], "middle": 9.5}]
    assert clearly_faster(choice, ALL, level, plan) is None
    beyond = [standing("middle", 2.0, 0.7), QUICK]
    assert clearly_faster(choice, beyond, ROUNDS, plan) is None
    assert clearly_faster(choice, ALL, ROUNDS, replace(plan, by_clock=True)) is None
