from __future__ import annotations

import itertools
from statistics import mean, pvariance

import pytest

from loadtest.arrivals import arrivals, schedule


def test_constant_arrivals_are_equally_far_apart_and_start_at_once() -> None:
    assert list(schedule("constant", 4, 1.0)) == [0.0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_have_the_rate_and_the_spread_of_their_law() -> None:
    due_s = list(itertools.islice(arrivals("poisson", 5.0, seed=1), 20_000))
    gaps = [b - a for a, b in itertools.pairwise(due_s)]
    assert min(gaps) > 0
    assert mean(gaps) == pytest.approx(0.2, rel=0.03)
    assert pvariance(gaps) == pytest.approx(0.2**2, rel=0.1)


def test_one_seed_is_one_pattern_that_the_rate_stretches() -> None:
    slow, again, fast = (
        list(itertools.islice(arrivals("poisson", rate, seed=3), 50)) for rate in (1.0, 1.0, 4.0)
    )
    other = list(itertools.islice(arrivals("poisson", 1.0, seed=4), 50))
    assert slow == again != other
    assert fast == pytest.approx([due_s / 4 for due_s in slow])


def test_a_schedule_ends_with_its_step() -> None:
    due_s = list(schedule("poisson", 50.0, 2.0, seed=0))
    assert 60 < len(due_s) < 140
    assert due_s[-1] < 2.0


@pytest.mark.parametrize(("law", "rate"), [("uniform", 1.0), ("poisson", 0.0), ("constant", -1)])
def test_what_cannot_be_is_refused(law: str, rate: float) -> None:
    with pytest.raises(ValueError, match=r"use one of|must be more than 0"):
        arrivals(law, rate)
