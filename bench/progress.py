"""What runs, and about how long the rest takes: a line on standard error for each turn."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Planned:
    """A turn to come: whose it is, and how much it has to do, in any unit that all turns share."""

    side: str
    work: float


class Progress:
    """Turns that are planned, counted as they end. What they took says what the rest will."""

    def __init__(self, planned: Sequence[Planned]) -> None:
        self._planned = list(planned)
        self._number = 0
        self._took: dict[str, float] = defaultdict(float)
        self._did: dict[str, float] = defaultdict(float)

    @contextmanager
    def turn(self, what: str) -> Iterator[None]:
        """The next of the planned turns, while it runs."""
        planned = self._planned[self._number]
        self._number += 1
        say(f"[{self._number}/{len(self._planned)}] {what} ...", end="")
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        self._took[planned.side] += took
        self._did[planned.side] += planned.work
        say(f" {took:.1f} s; {self._left()}")

    def skip(self, side: str) -> None:
        """A side is out: nothing of it is to come."""
        rest = [one for one in self._planned[self._number :] if one.side != side]
        self._planned[self._number :] = rest

    def skip_next(self, count: int) -> None:
        """So many of the turns that are to come will not."""
        del self._planned[self._number : self._number + count]

    def left_s(self) -> float:
        """Seconds that the rest takes, at each side's pace so far, or at that of all for one that
        had no turn yet."""
        pace = sum(self._took.values()) / max(sum(self._did.values()), 1e-9)
        return sum(
            one.work
            * (self._took[one.side] / self._did[one.side] if one.side in self._did else pace)
            for one in self._planned[self._number :]
        )

    def _left(self) -> str:
        if self._number == len(self._planned):
            return "done"
        left_s = self.left_s()
        return f"about {left_s / 60:.0f} min left" if left_s >= 90 else f"about {left_s:.0f} s left"


def say(text: str, end: str = "\n") -> None:
    """At once, on standard error: the table alone is on standard output."""
    print(text, file=sys.stderr, end=end, flush=True)
