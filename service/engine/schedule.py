"""Which windows are encoded next: policy only. State and clock in, decision out.

The promise is that a short clip sent behind a long file is back before a tenth of the file is
done, at no price to the windows that others share. Four rules carry it.

1. *Newcomers first.* A request with no window in decode goes before one that has some, and is
   encoded at once, alone with other newcomers: its own encode is not made longer by the file's.
   Nobody starves: a file whose windows are all decoded is a newcomer again, and a window that is
   decoded again goes before all of them: it was begun before they came.
2. *Small pieces.* One request gives at most a quarter of an encode batch. A newcomer waits for the
   piece that is on the device, and one window is already a matrix of 1,500 rows, so a batch of
   one request's eight windows buys little speed and costs the newcomer eight windows of time.
3. *Half the slots.* One request holds at most half of the decode slots, and of their memory, so
   there is room for others as soon as they come, and a step is never long for one request's sake.
4. *Decoding has its time.* Newcomers are encoded only after decode steps have had half the time of
   the last encode: of many who come at once the first are answered before the last are encoded.
   While several requests decode, more windows of theirs wait for twice that time. Alone, a request
   fills its slots as fast as it can.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from service.config import ServerConfig
from service.engine.budget import UNLIMITED, Budget
from service.engine.queue import FairQueue
from service.types import Batch, Job

PIECES_PER_BATCH = 4
DECODE_PER_ENCODE = 2.0
DECODE_PER_NEWCOMERS = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """What the device is at: decode slots held by each request that holds any, and seconds.

    `encode_s` is what the last encode took, `decode_s` what decode steps took since; `limit`: of
    windows in decode, where memory ran out with more; `held`: bytes of those in decode, of what
    the `budget` has.
    """

    slots: Mapping[str, int]
    encode_s: float = 0.0
    decode_s: float = 0.0
    limit: int = sys.maxsize
    held: int = 0
    budget: Budget = UNLIMITED


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to encode now. Ask again after `seconds`, or (None) when something has changed."""

    seconds: float | None = None


def next_batch(queue: FairQueue, load: Load, now: float, config: ServerConfig) -> Batch | Wait:
    """Takes the windows to encode now from the queue, or says how long to wait.

    Waits for company at most `batch_wait_ms` after the oldest submission, and only where the
    device is idle and the waiting windows do not fill a batch.
    """
    most = min(config.max_decode_windows, load.limit)
    free = most - sum(load.slots.values())
    if not len(queue) or free <= 0:
        return Wait()
    idle = not load.slots
    if idle and len(queue) < config.max_batch_windows:
        wait_s = queue.oldest_submitted + config.batch_wait_ms / 1000 - now
        if wait_s > 0:
            return Wait(wait_s)
    room = min(free, config.max_batch_windows)
    piece = max(1, config.max_batch_windows // PIECES_PER_BATCH)
    fits = _Fitting(load)

    def share_left(request: str) -> int:
        most_windows = min(max(1, most // 2), fits.share_of(queue.next_of(request)))
        return min(piece, most_windows - load.slots.get(request, 0))

    def newcomers(request: str) -> int:
        following = queue.next_of(request)
        again = following is not None and following.resumed
        return 0 if request in load.slots and not again else share_left(request)

    had = load.decode_s / load.encode_s if load.slots and load.encode_s else math.inf
    if had < DECODE_PER_NEWCOMERS and any(newcomers(request) > 0 for request in queue.requests):
        return Wait()
    jobs = queue.take(room, newcomers, fits)
    shared = len(load.slots) > 1
    if not jobs and not (shared and had < DECODE_PER_ENCODE):
        jobs = queue.take(room, share_left, fits)
    return Batch(jobs) if jobs else Wait()


class _Fitting:
    """Whether the budget has room for one more job, those that were asked for before included.

    What would never fit goes alone. Nobody overtakes what does not fit now, or it would wait for
    ever.
    """

    def __init__(self, load: Load) -> None:
        self._budget, self._held = load.budget, load.held

    def __call__(self, job: Job) -> bool:
        cost = self._budget.cost(job)
        if self._budget.total and self._held and self._held + cost > self._budget.total:
            return False
        self._held += cost
        return True

    def share_of(self, job: Job | None) -> int:
        """Windows such as this one that half of the budget holds, one at least."""
        cost = self._budget.cost(job) if job is not None and self._budget.total else 0
        return max(1, self._budget.total // 2 // cost) if cost else sys.maxsize
