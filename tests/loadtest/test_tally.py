from __future__ import annotations

import pytest

from loadtest.tally import Seen, Tally

from .made import visit


@pytest.mark.parametrize(
    ("seen", "held"),
    [
        (Seen([], 0, 0), False),
        (Seen([1.0] * 19 + [3.0], 0, 0), True),
        (Seen([1.0] * 18 + [3.0] * 2, 0, 0), False),
        (Seen([1.0] * 19, 1, 0), True),
        (Seen([1.0] * 19, 2, 0), False),
        (Seen([1.0] * 19, 0, 2), False),
    ],
)
def test_a_stall_does_not_hide_in_requests_that_are_still_open(seen: Seen, held: bool) -> None:
    assert seen.held(2.0) is held


class Stalled:
    def num_overdue(self, limit_s: float) -> int:
        return 3 if limit_s < 10 else 0


def test_a_step_is_what_came_since_the_last_one() -> None:
    tally = Tally()
    tally.sources.add(Stalled())
    tally.of("dense")(visit(latency_s=0.5))
    tally.of("fast")(visit(status=429))
    assert tally.take(2.0) == Seen([0.5], 1, 3)
    tally.of("dense")(visit(latency_s=0.7))
    assert tally.take(20.0) == Seen([0.7], 0, 0)


def test_profiles_have_a_line_each_with_what_locust_does_not_know() -> None:
    tally = Tally()
    for text in ("good day", "good night"):
        tally.of("dense")(visit(text=text))
    tally.of("fast")(visit(status=429, late_s=0.3))
    dense, fast = tally.lines()
    assert dense.startswith("dense: 2 requests, 0.0% without an answer")
    assert "WER 25.0%" in dense
    assert "BOTTLENECK" not in dense
    assert "100.0% without an answer" in fast
    assert "WER not known" in fast
    assert "IT WAS THE BOTTLENECK" in fast
    tally.reset()
    assert tally.lines() == []
