"""Which rate to try next, to find the highest that holds. Pure: trials in, a rate out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trial:
    """A rate that was tried, requests a second, and whether it held."""

    rate: float
    held: bool


@dataclass(frozen=True, slots=True)
class Search:
    """Doubles from `start` until a rate fails (or halves until one holds), then bisects.

    Ends when the highest that held and the lowest that failed are within `tolerance` of each
    other (0.1: 10%), at `ceiling` or `floor`, or after `most_trials`.
    """

    start: float = 1.0
    tolerance: float = 0.1
    floor: float = 0.01
    ceiling: float = 1000.0
    most_trials: int = 12

    def next_rate(self, trials: Sequence[Trial]) -> float | None:
        """The rate to try after these trials; None when there is nothing more to learn."""
        if len(trials) >= self.most_trials:
            return None
        if not trials:
            return self.start
        best, failed = maximum(trials), _lowest_failure(trials)
        if failed is None:
            rate = min(2 * max(t.rate for t in trials), self.ceiling)
        elif best is None:
            rate = max(failed / 2, self.floor)
        elif failed / best <= 1 + self.tolerance:
            return None
        else:
            rate = (best + failed) / 2
        return None if any(t.rate == rate for t in trials) else rate


def maximum(trials: Sequence[Trial]) -> float | None:
    """The highest rate that held below every one that failed; None where there is none.

    A rate that held above one that failed was luck, and does not count.
    """
    failed = _lowest_failure(trials)
    return max(
        (t.rate for t in trials if t.held and (failed is None or t.rate < failed)), default=None
    )


def _lowest_failure(trials: Sequence[Trial]) -> float | None:
    return min((t.rate for t in trials if not t.held), default=None)
