"""The fair queue: jobs wait by request, and requests take turns. No threads, no clock of its own.

A turn is two windows, a minute: what most recordings have is answered in one turn, and a clip never
waits for an hour's 120 windows but for two of each request before it.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence

from service.errors import QueueFull, TooLarge
from service.types import Job

TURN_WINDOWS = 2
# Throughput is what was finished lately: this many windows, none older than this.
RECENT_WINDOWS = 256
RECENT_S = 60.0
# Before anything was finished, one window a second is a careful guess for two CPU cores.
GUESSED_WINDOWS_PER_S = 1.0
LEAST_RETRY_S = 1.0
MOST_RETRY_S = 300.0


class FairQueue:
    """Windows that wait, at most `max_windows`. The caller guards it with a lock."""

    def __init__(self, max_windows: int) -> None:
        self._max_windows = max_windows
        self._turns: OrderedDict[str, deque[Job]] = OrderedDict()
        self._given: dict[str, int] = {}  # windows taken in the turn that a request has
        self._size = 0
        self._earliest_deadline = math.inf
        # In seconds of work, which stand still while the engine rests: idle time is no throughput.
        self._finished: deque[float] = deque(maxlen=RECENT_WINDOWS)
        self._resting_since: float | None = None
        self._rested_s = 0.0

    def __len__(self) -> int:
        return self._size

    @property
    def requests(self) -> tuple[str, ...]:
        """Those that have jobs waiting, in the order of their turns."""
        return tuple(self._turns)

    @property
    def oldest_submitted(self) -> float:
        """When the first of the requests' next jobs was submitted; infinity where none waits."""
        return min((jobs[0].submitted for jobs in self._turns.values()), default=math.inf)

    def put(self, jobs: Sequence[Job], now: float) -> None:
        """Takes all the jobs or none; resumed ones ahead of everybody's.

        Raises QueueFull with the seconds after which there should be room, or TooLarge for more
        jobs than the queue could ever hold.
        """
        if len(jobs) > self._max_windows:
            raise TooLarge(
                f"the recording has {len(jobs)} windows, the queue holds {self._max_windows}"
            )
        if self._size + len(jobs) > self._max_windows:
            self.sweep()
        excess = self._size + len(jobs) - self._max_windows
        if excess > 0:
            raise QueueFull(
                f"the queue is full: {self._size} of {self._max_windows} windows wait",
                self.retry_after_s(excess, now),
            )
        if jobs and self._resting_since is not None:
            self._rested_s += now - self._resting_since
            self._resting_since = None
        for job in jobs:
            self._add(job, ahead=job.resumed)

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Jobs that were taken wait again, ahead of everybody's, however many wait."""
        for job in reversed(jobs):
            self._add(job, ahead=True)

    def _add(self, job: Job, ahead: bool) -> None:
        waiting = self._turns.setdefault(job.request_id, deque())
        if ahead:
            waiting.appendleft(job)
            self._turns.move_to_end(job.request_id, last=False)
        else:
            waiting.append(job)
        self._earliest_deadline = min(self._earliest_deadline, job.deadline)
        self._size += 1

    def next_of(self, request_id: str) -> Job | None:
        """The job that a request has waiting first, unless nobody waits for it any more."""
        jobs = self._turns.get(request_id)
        while jobs and jobs[0].reply.done():
            jobs.popleft()
            self._size -= 1
        if jobs:
            return jobs[0]
        self._turns.pop(request_id, None)
        self._given.pop(request_id, None)
        return None

    def take(
        self,
        limit: int,
        allowance: Callable[[str], int],
        fits: Callable[[Job], bool] = lambda _: True,
    ) -> tuple[Job, ...]:
        """Removes up to `limit` jobs in turn, at most `allowance(request_id)` of each request.

        Jobs whose reply is settled (cancelled) are dropped on the way. A request that was passed
        over because of its allowance keeps its place in the line. The first job that does not fit
        ends it: each one that is taken was asked about, in that order.
        """
        taken: list[Job] = []
        counts: Counter[str] = Counter()
        before = -1
        while before < len(taken) < limit:
            before = len(taken)
            for request_id in list(self._turns):
                if len(taken) == limit:
                    break
                job = self.next_of(request_id)
                if job is None or counts[request_id] >= allowance(request_id):
                    continue
                if not fits(job):
                    return tuple(taken)
                self._remove_next(request_id)
                taken.append(job)
                counts[request_id] += 1
        return tuple(taken)

    def _remove_next(self, request_id: str) -> None:
        """A request's first job; after a turn the request goes to the back."""
        jobs = self._turns[request_id]
        jobs.popleft()
        self._size -= 1
        given = self._given.pop(request_id, 0) + 1
        if not jobs:
            del self._turns[request_id]
        elif given < TURN_WINDOWS:
            self._given[request_id] = given
        else:
            self._turns.move_to_end(request_id)

    def sweep(self) -> None:
        """Forgets the jobs whose replies are settled (cancelled), wherever they wait."""
        self._keep(lambda job: not job.reply.done())

    def expire(self, now: float) -> tuple[Job, ...]:
        """Removes and returns the jobs whose deadline has passed; free while none can have."""
        if now < self._earliest_deadline:
            return ()
        expired = tuple(job for jobs in self._turns.values() for job in jobs if job.deadline <= now)
        self._keep(lambda job: job.deadline > now)
        return expired

    def clear(self) -> tuple[Job, ...]:
        """Removes and returns every job."""
        waiting = tuple(job for jobs in self._turns.values() for job in jobs)
        self._keep(lambda _: False)
        return waiting

    def _keep(self, wanted: Callable[[Job], bool]) -> None:
        kept = {
            request_id: deque(job for job in jobs if wanted(job))
            for request_id, jobs in self._turns.items()
        }
        self._turns = OrderedDict((rid, jobs) for rid, jobs in kept.items() if jobs)
        self._given = {rid: n for rid, n in self._given.items() if rid in self._turns}
        self._size = sum(map(len, self._turns.values()))
        self._earliest_deadline = min(
            (job.deadline for jobs in self._turns.values() for job in jobs), default=math.inf
        )

    def finished(self, num_windows: int, now: float) -> None:
        """Counts windows that the engine has answered, for the throughput behind retry-after."""
        self._finished.extend([self._work_s(now)] * num_windows)

    def rest(self, now: float) -> None:
        """Nothing is left to answer, until jobs are put again."""
        if self._resting_since is None:
            self._resting_since = now

    def _work_s(self, now: float) -> float:
        return (now if self._resting_since is None else self._resting_since) - self._rested_s

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
