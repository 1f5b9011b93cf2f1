"""What the engine answers, and so how long who comes will wait. No threads, no clock of its own."""

from __future__ import annotations

import math
from collections import deque

# Throughput is what was finished lately: this many windows, none older than this.
RECENT_WINDOWS = 256
RECENT_S = 60.0
# Before anything was finished, one window a second is a careful guess for two CPU cores.
GUESSED_WINDOWS_PER_S = 1.0
LEAST_RETRY_S = 1.0
MOST_RETRY_S = 300.0


class Meter:
    """Windows for each second of work: while the engine rests its clock stands still, because idle
    time is no throughput."""

    def __init__(self) -> None:
        self._finished: deque[float] = deque(maxlen=RECENT_WINDOWS)  # in seconds of work
        self._resting_since: float | None = None
        self._rested_s = 0.0

    def work(self, now: float) -> None:
        """There is something to do."""
        if self._resting_since is not None:
            self._rested_s += now - self._resting_since
            self._resting_since = None

    def rest(self, now: float) -> None:
        """Nothing is left to answer, until there is work again."""
        if self._resting_since is None:
            self._resting_since = now

    def finished(self, num_windows: int, now: float) -> None:
        """So many windows were answered."""
        self._finished.extend([self._work_s(now)] * num_windows)

    def rate(self, now: float) -> float:
        """Windows answered lately for each second of work; infinite where there were none."""
        work_s = self._work_s(now)
        while self._finished and work_s - self._finished[0] > RECENT_S:
            self._finished.popleft()
        elapsed_s = work_s - self._finished[0] if self._finished else 0.0
        return len(self._finished) / elapsed_s if elapsed_s > 0 else math.inf

    def retry_after_s(self, num_windows: int, now: float) -> float:
        """Seconds in which this many windows should leave, at the rate of the recent ones."""
        rate = self.rate(now)
        wait_s = num_windows / (GUESSED_WINDOWS_PER_S if math.isinf(rate) else rate)
        return min(max(wait_s, LEAST_RETRY_S), MOST_RETRY_S)

    def _work_s(self, now: float) -> float:
        return (now if self._resting_since is None else self._resting_since) - self._rested_s
