from __future__ import annotations

from collections.abc import Callable

import pytest

from loadtest.campaign import at_maxima, at_rates, find_maxima, overload, soak, turns
from loadtest.find_max import Search
from loadtest.results import MAXIMUM, OVERLOAD, SOAK, Step, StepResult

from .made import result


def recorder(
    answer: Callable[[Step], StepResult],
) -> tuple[list[Step], Callable[[Step], StepResult]]:
    steps: list[Step] = []

    def run(step: Step) -> StepResult:
        steps.append(step)
        return answer(step)

    return steps, run


def holds(capacity: dict[str, float]) -> Callable[[Step], StepResult]:
    """Every profile holds up to its capacity."""
    return lambda s: result(s.profile, s.rate, kind=s.kind, held=s.rate <= capacity[s.profile])


def test_every_round_another_profile_begins() -> None:
    assert [turns("abc", i) for i in range(4)] == [[*"abc"], [*"bca"], [*"cab"], [*"abc"]]


def test_profiles_take_turns_and_share_a_seed_within_a_turn() -> None:
    steps, run = recorder(lambda s: result(s.profile, s.rate))
    at_rates(["dense", "fast"], [1, 2], 5.0, rounds=2, seed=7, run=run)
    assert [(s.profile, s.rate, s.seed) for s in steps] == [
        ("dense", 1, 7),
        ("fast", 1, 7),
        ("fast", 2, 8),
        ("dense", 2, 8),
        ("dense", 1, 9),
        ("fast", 1, 9),
        ("fast", 2, 10),
        ("dense", 2, 10),
    ]


def test_each_profile_is_searched_to_its_own_end() -> None:
    steps, run = recorder(holds({"dense": 3.1, "fast": 6.5, "none": 0}))
    search = Search(start=2, tolerance=0.5, floor=1)
    maxima = find_maxima(["dense", "fast", "none"], search, 5.0, seed=0, run=run)
    assert {p: best and best.step.rate for p, best in maxima.items()} == {
        "dense": 3,
        "fast": 6,
        "none": None,
    }
    assert [s.profile for s in steps[:4]] == ["dense", "fast", "none", "fast"]


def test_soak_and_overload_are_relative_to_the_maximum() -> None:
    steps, run = recorder(lambda s: result(s.profile, s.rate, kind=s.kind))
    maxima = {"dense": result(rate=5.0), "fast": None}
    soak(maxima, 0.8, 60.0, 0, run)
    overload(maxima, 4.0, 30.0, 0, run)
    assert [(s.kind, s.profile, s.rate, s.seconds) for s in steps] == [
        (SOAK, "dense", 4.0, 60.0),
        (OVERLOAD, "dense", 20.0, 30.0),
    ]


def test_an_overload_is_told_as_shares_of_the_maximum() -> None:
    maxima: dict[str, StepResult | None] = {"dense": result(latencies_s=(0.5,) * 40)}
    _, run = recorder(lambda s: result(latencies_s=(0.5,) * 30, refused=30))
    (found,) = overload(maxima, 4.0, 30.0, 0, run)
    assert (found.goodput_requests, found.goodput_audio) == pytest.approx((0.75, 0.75))
    assert found.refused_share == pytest.approx(0.5)
    assert found.returned_accepted_share is None


def test_known_maxima_are_measured_first() -> None:
    steps, run = recorder(lambda s: result(s.profile, s.rate))
    assert set(at_maxima({"dense": 5.0, "fast": 7.0}, 20.0, 0, run)) == {"dense", "fast"}
    assert [(s.kind, s.rate) for s in steps] == [(MAXIMUM, 5.0), (MAXIMUM, 7.0)]
