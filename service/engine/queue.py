"""The fair queue: jobs wait by request, and requests take turns. No threads, no clock of its own.

A turn is two windows, a minute: what most recordings have is answered in one turn, and a clip never
waits for an hour's 120 windows but for two of each request before it.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence

from service.errors import TooLarge
from service.types import Job

TURN_WINDOWS = 2


class FairQueue:
    """Windows that wait, at most `max_windows`. The caller guards it with a lock."""

    def __init__(self, max_windows: int) -> None:
        self._max_windows = max_windows
        self._turns: OrderedDict[str, deque[Job]] = OrderedDict()
        self._given: dict[str, int] = {}  # windows taken in the turn that a request has
        self._size = 0
        self._earliest_deadline = math.inf

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

    def lacking(self, num_jobs: int) -> int:
        """How many of so many jobs there is no room for. Raises TooLarge if there never is."""
        if num_jobs > self._max_windows:
            raise TooLarge(
                f"the recording has {num_jobs} windows, the queue holds {self._max_windows}"
            )
        if self._size + num_jobs > self._max_windows:
            self.sweep()
        return max(0, self._size + num_jobs - self._max_windows)

    def put(self, jobs: Sequence[Job]) -> None:
        """Takes jobs, for which the caller knows that there is room; resumed ones ahead of
        everybody's."""
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
