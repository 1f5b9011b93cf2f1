"""What callers' threads and the device's thread share, under one lock: waiting jobs and the state.

Every accepted job is outstanding until its reply is settled, so whatever happens to the device's
thread, what is outstanding can still be answered.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Literal

from service.config import ServerConfig
from service.engine.meter import Meter
from service.engine.queue import TURN_WINDOWS, FairQueue
from service.engine.replies import reject
from service.engine.schedule import Load, Wait, next_batch
from service.errors import DeadlineExceeded, NotReady, QueueFull, WinnowError
from service.metrics import ModelMetrics
from service.types import Job, WindowResult

State = Literal["loading", "ready", "draining", "failed", "stopped"]

# Loading takes seconds to minutes, a lost device is probed every few seconds; and a load balancer
# that is told to come back in this time finds another replica meanwhile.
RETRY_AFTER_S = 5.0


class Intake:
    """Accepts jobs while ready, hands them to the device's thread, and knows the unanswered."""

    def __init__(
        self,
        config: ServerConfig,
        metrics: ModelMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._changed = threading.Condition()
        self._meter = Meter()
        self._queue = FairQueue(config.max_queue_windows)
        # By identity: a reply keeps its callbacks, and one that knew its job would keep both, with
        # the window's samples and states, until somebody collects garbage.
        self._outstanding: dict[int, Job] = {}
        self._state: State = "loading"
        self._reason = "the model is loading"

    @property
    def state(self) -> State:
        return self._state

    @property
    def reason(self) -> str:
        return self._reason

    @property
    def num_outstanding(self) -> int:
        """Accepted jobs without an answer."""
        with self._changed:
            return len(self._outstanding)

    def waiting(self) -> tuple[int, float]:
        """Windows ahead of a newcomer, and those answered a second lately, infinite if unknown.

        Ahead is a turn of each request, waiting or on the device: under load a window is in decode
        for many seconds, but an hour in half of the slots leaves a newcomer the other half.
        """
        with self._changed:
            held = Counter(job.request_id for job in self._outstanding.values())
            num_ahead = sum(min(number, TURN_WINDOWS) for number in held.values())
            return num_ahead, self._meter.rate(self._clock())

    def submit(self, jobs: Sequence[Job], *, admitted: bool = False) -> None:
        """Accepts all the jobs or none, `admitted` ones while draining too.

        Raises NotReady, QueueFull or TooLarge.
        """
        with self._changed:
            if self._state != "ready" and not (admitted and self._state == "draining"):
                raise NotReady(f"not ready: {self._reason}", RETRY_AFTER_S)
            now = self._clock()
            if excess := self._queue.lacking(len(jobs)):
                waiting = f"{len(self._queue)} of {self._config.max_queue_windows} windows wait"
                retry_s = self._meter.retry_after_s(excess, now)
                raise QueueFull(f"the queue is full: {waiting}", retry_s)
            self._queue.put(jobs)
            if jobs:
                self._meter.work(now)
            self._outstanding |= {id(job): job for job in jobs}
            self._show_queue()
            self._changed.notify_all()
        # Outside the lock: a reply that is settled by now runs its callback here and at once.
        for job in jobs:
            job.reply.add_done_callback(partial(self._settled, id(job)))

    def _settled(self, number: int, reply: Future[WindowResult]) -> None:
        with self._changed:
            self._outstanding.pop(number, None)
            if not reply.cancelled() and reply.exception() is None:
                self._meter.finished(1, self._clock())
            if not self._outstanding:
                self._meter.rest(self._clock())
                self._changed.notify_all()

    def withdraw(self, jobs: Sequence[Job]) -> None:
        """Cancels the replies that are not settled, and makes room in the queue."""
        for job in jobs:
            job.reply.cancel()
        with self._changed:
            self._queue.sweep()
            self._show_queue()
            self._changed.notify_all()

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Jobs that `next_jobs` gave wait again, ahead of all others."""
        with self._changed:
            self._queue.put_back(jobs)
            self._show_queue()

    def next_jobs(self, load: Load) -> tuple[Job, ...]:
        """The jobs to encode now, or none; expired ones are answered.

        Where nothing is in decode and nothing to encode, it blocks until something changes.
        """
        with self._changed:
            expired = self._queue.expire(self._clock())
            decision = next_batch(self._queue, load, self._clock(), self._config)
            self._show_queue()
            idle = not (load.slots or expired or self._state == "stopped")
            if isinstance(decision, Wait) and idle:
                self._changed.wait(decision.seconds)
        for job in expired:
            reject(job, DeadlineExceeded("the deadline passed while the window was waiting"))
        return () if isinstance(decision, Wait) else decision.jobs

    def open(self) -> None:
        """Ready, if it was loading or had failed."""
        with self._changed:
            if self._state in ("loading", "failed"):
                self._enter("ready", "")

    def fail(self, reason: str, error: Callable[[], WinnowError]) -> None:
        """Not ready because of `reason`; whoever waits gets an `error`."""
        with self._changed:
            if self._state in ("loading", "ready", "failed"):
                self._enter("failed", reason)
        self.answer_all(error)

    def begin_drain(self) -> None:
        """Accepts no more; what was accepted goes on."""
        with self._changed:
            if self._state != "stopped":
                self._enter("draining", "the service is shutting down")

    def stop(self, error: Callable[[], WinnowError]) -> None:
        """Final: accepts nothing, and whoever waits gets an `error`."""
        with self._changed:
            self._enter("stopped", "the service has stopped")
        self.answer_all(error)

    def wait_idle(self, timeout_s: float) -> bool:
        """Whether every accepted job is answered, now or within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._outstanding, timeout_s)

    def wait_state(self, unwanted: State, timeout_s: float) -> State:
        """The state, as soon as it is not `unwanted`, or when the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._state != unwanted, timeout_s)
            return self._state

    def answer_all(self, error: Callable[[], WinnowError]) -> None:
        """Every job without an answer gets an error of its own; the loop drops those it has."""
        with self._changed:
            left = list(self._outstanding.values())
            self._queue.clear()
            self._show_queue()
        for job in left:
            reject(job, error())

    def _enter(self, state: State, reason: str) -> None:
        self._state, self._reason = state, reason
        self._metrics.ready.set(1 if state == "ready" else 0)
        self._changed.notify_all()

    def _show_queue(self) -> None:
        self._metrics.queue_windows.set(len(self._queue))
