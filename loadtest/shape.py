"""A Locust shape that adds users step by step until their p95 passes a limit."""

from __future__ import annotations

import logging
from collections.abc import Callable

from locust import LoadTestShape

from loadtest.find_max import Search, Trial, maximum
from loadtest.tally import Seen

logger = logging.getLogger("loadtest")


class SteppedShape(LoadTestShape):
    """Steps of `step_s` seconds; `take` tells what was seen in the last one, given the limit.

    Locust would use a shape of the locustfile always, so this one is put in only when asked for.
    """

    abstract = True

    def __init__(
        self, start_users: int, step_s: float, p95_s: float, take: Callable[[float], Seen]
    ) -> None:
        super().__init__()
        self._search = Search(start=start_users, floor=1)
        self._step_s = step_s
        self._p95_s = p95_s
        self._take = take
        self.trials: list[Trial] = []
        self._users = start_users
        self._step_ends_s = step_s

    def reset_time(self) -> None:
        super().reset_time()
        self.trials.clear()
        self._users, self._step_ends_s = round(self._search.start), self._step_s

    def tick(self) -> tuple[int, float] | None:
        """Locust asks every second how many users there should be; None ends the test."""
        if self.get_run_time() >= self._step_ends_s:
            held = self._take(self._p95_s).held(self._p95_s)
            self.trials.append(Trial(self._users, held))
            logger.info("%d users: p95 %s", self._users, "held" if held else "not held")
            rate = self._search.next_rate(self.trials)
            if rate is None or any(t.rate == round(rate) for t in self.trials):
                logger.info("most users that hold the p95: %s", self.most_users or "none")
                return None
            self._users = round(rate)
            self._step_ends_s = self.get_run_time() + self._step_s
        return self._users, min(self._users, 100)

    @property
    def most_users(self) -> int | None:
        """The most users that held, so far."""
        best = maximum(self.trials)
        return None if best is None else round(best)
