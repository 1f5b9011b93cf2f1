"""Which newcomers are taken while more come than can be answered, and when the others may return.

A queue longer than its clients' patience answers only those who are about to leave. So a request
that would wait too long is refused, before its recording is read. It gets a place in a line: who
comes back when told to is taken ahead of newcomers. Pure: load and clock in, a decision out.
"""

from __future__ import annotations

from collections import OrderedDict

from service.errors import QueueFull

ALWAYS_WAITING = 16  # windows that may wait on a device however slow it is
LEAST_RETRY_S, MOST_RETRY_S = 1.0, 300.0
KEPT_S = 10.0  # how long a place is kept for a client that is late
MAX_PLACES = 10_000
# Of this many clients that were told to return, how many did so says how far apart places are.
REMEMBERED = 100
SIZES_REMEMBERED = 32  # requests by which the usual size of one is known


class Admission:
    """Takes a request while it would wait at most `max_wait_s`; up to twice that if it returns."""

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._due: OrderedDict[str, float] = OrderedDict()  # when each caller may come back
        self._num_returned = self._num_lapsed = 0.0
        self._windows = 1.0  # of a request, lately

    def admit(self, caller: str, num_ahead: int, rate: float, now: float) -> None:
        """Takes the caller's request, or raises QueueFull with the seconds until its turn.

        `num_ahead` windows are before the caller's; `rate` (windows a second, infinite where nobody
        knows) is what the engine answers lately. `caller` is the same when a request is sent again.
        """
        self._let_lapse(now)
        due = self._due.get(caller)
        returns = due is not None and due <= now
        wait_s = num_ahead / rate
        if num_ahead < ALWAYS_WAITING or wait_s <= self._max_wait_s * (2 if returns else 1):
            if self._due.pop(caller, None) is not None:
                self._learn(returned=1)
            return
        if due is None or returns:
            self._due.pop(caller, None)
            due = self._due[caller] = now + self._line_s(rate)
            if len(self._due) > MAX_PLACES:
                self._due.popitem(last=False)
        raise QueueFull(
            f"the queue is full: {num_ahead} windows are ahead, which takes {wait_s:.0f} s",
            due - now,
        )

    def learn_size(self, num_windows: int) -> None:
        """A request that was taken has so many windows, which nobody knew before it was read."""
        self._windows += (max(1, num_windows) - self._windows) / SIZES_REMEMBERED

    def _line_s(self, rate: float) -> float:
        """How long those before the next place in the line keep the engine busy."""
        returning = (1 + self._num_returned) / (1 + self._num_returned + self._num_lapsed)
        ahead_s = len(self._due) * returning * self._windows / rate
        return min(LEAST_RETRY_S + ahead_s, MOST_RETRY_S)

    def _let_lapse(self, now: float) -> None:
        while self._due and next(iter(self._due.values())) + KEPT_S < now:
            self._due.popitem(last=False)
            self._learn(lapsed=1)

    def _learn(self, *, returned: int = 0, lapsed: int = 0) -> None:
        self._num_returned += returned
        self._num_lapsed += lapsed
        if self._num_returned + self._num_lapsed > REMEMBERED:
            self._num_returned /= 2
            self._num_lapsed /= 2
