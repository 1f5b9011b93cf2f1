"""What came of the requests of a Locust run, over all its users."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from loadtest.accuracy import score
from loadtest.outcomes import Visit, summarise

MAX_LATE_S = 0.05


class Open(Protocol):
    """A source of requests, of which some are open."""

    def num_overdue(self, limit_s: float) -> int: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a step's requests: latencies of the answered, and how many had none.

    `overdue` ones are still open, and already older than the limit.
    """

    latencies_s: Sequence[float]
    failed: int
    overdue: int

    def held(self, p95_s: float) -> bool:
        """Whether 95% of the requests were answered within the limit. Nothing sent: not."""
        within = sum(latency <= p95_s for latency in self.latencies_s)
        total = len(self.latencies_s) + self.failed + self.overdue
        return total > 0 and within >= 0.95 * total


class Tally:
    """Gathers visits by profile; a run begins with `reset`."""

    def __init__(self) -> None:
        self.sources: set[Open] = set()
        self.reset()

    def reset(self) -> None:
        """Forgets everything but the sources."""
        self._visits: dict[str, list[Visit]] = defaultdict(list)
        self._fresh: list[Visit] = []
        self._began = time.perf_counter()

    def of(self, profile: str) -> Callable[[Visit], None]:
        """Takes the visits of a user of that profile."""
        return partial(self._add, profile)

    def _add(self, profile: str, visit: Visit) -> None:
        self._visits[profile].append(visit)
        self._fresh.append(visit)

    def take(self, limit_s: float) -> Seen:
        """What ended since this was last asked, and what is open for longer than the limit."""
        fresh, self._fresh = self._fresh, []
        return Seen(
            latencies_s=[v.latency_s for v in fresh if v.answered],
            failed=sum(not v.answered for v in fresh),
            overdue=sum(source.num_overdue(limit_s) for source in self.sources),
        )

    def lines(self) -> list[str]:
        """By profile what Locust's own table does not have."""
        seconds = time.perf_counter() - self._began
        return [_line(profile, visits, seconds) for profile, visits in self._visits.items()]


def _line(profile: str, visits: Sequence[Visit], seconds: float) -> str:
    summary, wer = summarise(visits, seconds), score(visits).wer
    words = "WER not known" if wer is None else f"WER {wer:.1%}"
    late = f"generator late by {1000 * summary.late_p99_s:.1f} ms at p99"
    if summary.late_p99_s > MAX_LATE_S:
        late += ": IT WAS THE BOTTLENECK, do not trust these figures"
    return (
        f"{profile}: {summary.num_requests} requests, {summary.error_share:.1%} without an answer, "
        f"{summary.rtfx:.1f} s of audio answered a second, {words}, {late}"
    )
