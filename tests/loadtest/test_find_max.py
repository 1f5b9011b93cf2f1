from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.find_max import Search, Trial, maximum


def walk(search: Search, capacity: float) -> list[Trial]:
    """Every trial of a search against a server that holds up to `capacity`."""
    trials: list[Trial] = []
    while (rate := search.next_rate(trials)) is not None:
        trials.append(Trial(rate, rate <= capacity))
    return trials


def test_it_doubles_until_a_rate_fails_and_then_bisects() -> None:
    rates = [t.rate for t in walk(Search(start=1, tolerance=0.1), capacity=5.2)]
    assert rates == [1, 2, 4, 8, 6, 5, 5.5]


def test_it_halves_until_a_rate_holds() -> None:
    rates = [t.rate for t in walk(Search(start=8, tolerance=0.5), capacity=1.4)]
    assert rates == [8, 4, 2, 1, 1.5]


@given(st.floats(0.05, 500), st.floats(0.1, 50), st.floats(0.02, 0.5))
def test_it_ends_within_the_tolerance_of_the_capacity(
    capacity: float, start: float, tolerance: float
) -> None:
    trials = walk(Search(start=start, tolerance=tolerance, most_trials=100), capacity)
    found = maximum(trials)
    assert found is not None
    assert found <= capacity <= found * (1 + tolerance) * (1 + 1e-9)


def test_it_ends_at_its_bounds_and_after_its_trials() -> None:
    assert walk(Search(start=1, floor=0.5), capacity=0)[-1] == Trial(0.5, False)
    assert walk(Search(start=1, ceiling=8), capacity=100)[-1] == Trial(8, True)
    assert len(walk(Search(start=1, tolerance=0.0, most_trials=7), capacity=3.3)) == 7


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        ([], None),
        ([Trial(1, False)], None),
        ([Trial(1, True), Trial(2, True)], 2),
        ([Trial(1, True), Trial(4, True), Trial(2, False)], 1),
        ([Trial(1, True), Trial(1, False)], None),
    ],
)
def test_a_rate_that_held_above_one_that_failed_does_not_count(
    trials: list[Trial], best: float | None
) -> None:
    assert maximum(trials) == best


def test_luck_does_not_keep_the_search_from_ending() -> None:
    trials = [Trial(1, False), Trial(0.5, True), Trial(0.75, False), Trial(0.625, True)]
    assert Search(start=1, tolerance=0.25).next_rate(trials) is None
