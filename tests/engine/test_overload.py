"""Four times what the device can do, in virtual time: who is taken does not wait for ever."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from dataclasses import dataclass

import pytest

from service.config import ServerConfig
from service.engine.meter import GUESSED_WINDOWS_PER_S, Meter
from service.engine.queue import TURN_WINDOWS, FairQueue
from service.engine.schedule import Load, Wait, next_batch
from service.errors import QueueFull
from service.requests.admission import Admission
from service.types import Job

from .jobs import make_job

ENCODE_S, STEP_S, STEP_WINDOW_S = 0.5, 0.01, 0.0025  # base on two cores
SEATS, TOKENS = 32, 90
CAPACITY = 1 / (ENCODE_S + TOKENS * (STEP_S / SEATS + STEP_WINDOW_S))  # windows a second
AGAIN = 0.25  # of all windows are decoded a second time
PATIENCE_S = 120.0  # in which a client comes back when it is told to


@dataclass(slots=True)
class Request:
    name: str
    windows: int
    sent: float
    taken: float = math.nan
    told_s: float = math.nan  # what was ahead of it when it was taken
    begun: float = math.nan
    done: float = math.nan
    left: int = 0

    @property
    def turns(self) -> int:
        return -(-self.windows // TURN_WINDOWS)


class Overload:
    """A device, and clients who come at random, at so many times its capacity."""

    def __init__(self, load: float, seconds: float, seed: int) -> None:
        self.random = random.Random(seed)
        self.config = ServerConfig(max_decode_windows=SEATS)
        self.queue = FairQueue(self.config.max_queue_windows)
        self.meter = Meter()
        self.admission = Admission(self.config.max_wait_seconds)
        self.requests: list[Request] = []
        self.arrivals: list[tuple[float, int]] = []
        self.outstanding: Counter[str] = Counter()
        self.decoding: list[tuple[Job, int]] = []  # and the tokens that are left
        self.resumed_s: list[float] = []  # how long those waited that are decoded again
        self.now = at = 0.0
        for number in itertools.count():
            windows = self.random.choices([1, 4, 20], [80, 15, 5])[0]
            at += self.random.expovariate(load * CAPACITY / (1 + AGAIN) / windows)
            if at > seconds:
                break
            self.requests.append(Request(str(number), windows, at))
            self.arrivals.append((at, number))

    def run(self) -> list[Request]:
        """Those that were taken, all of them done."""
        encode_s = decode_s = 0.0
        while self.arrivals or len(self.queue) or self.decoding:
            self._let_in()
            load = Load(Counter(job.request_id for job, _ in self.decoding), encode_s, decode_s)
            decision = next_batch(self.queue, load, self.now, self.config)
            if not isinstance(decision, Wait):
                encode_s, decode_s = ENCODE_S * len(decision.jobs), 0.0
                self._begin(decision.jobs)
                self.now += encode_s
            elif not self.decoding:
                waits_for_company = len(self.queue) or not self.arrivals
                self.now = (
                    self.now + (decision.seconds or 0.0)
                    if waits_for_company
                    else max(self.now, self.arrivals[0][0])
                )
            if self.decoding:
                step_s = STEP_S + STEP_WINDOW_S * len(self.decoding)
                self.now, decode_s = self.now + step_s, decode_s + step_s
                self._step()
        return [request for request in self.requests if not math.isnan(request.taken)]

    def _let_in(self) -> None:
        while self.arrivals and self.arrivals[0][0] <= self.now:
            _, number = heapq.heappop(self.arrivals)
            request = self.requests[number]
            ahead = sum(min(held, TURN_WINDOWS) for held in self.outstanding.values())
            rate = self.meter.rate(self.now)
            try:
                self.admission.admit(request.name, ahead, rate, self.now)
            except QueueFull as full:
                back = self.now + full.retry_after_s
                if back < request.sent + PATIENCE_S:
                    heapq.heappush(self.arrivals, (back, number))
                continue
            request.taken, request.left = self.now, request.windows
            request.told_s = ahead / (GUESSED_WINDOWS_PER_S if math.isinf(rate) else rate)
            self.outstanding[request.name] = request.windows
            jobs = [
                make_job(request.name, index=i, submitted=self.now) for i in range(request.windows)
            ]
            self.queue.put(jobs)
            self.meter.work(self.now)

    def _begin(self, jobs: tuple[Job, ...]) -> None:
        for job in jobs:
            request = self.requests[int(job.request_id)]
            if math.isnan(request.begun):
                request.begun = self.now
            if job.resumed:
                self.resumed_s.append(self.now - job.submitted)
        self.decoding += [(job, TOKENS) for job in jobs]

    def _step(self) -> None:
        ended = [job for job, left in self.decoding if left == 1]
        self.decoding = [(job, left - 1) for job, left in self.decoding if left > 1]
        for job in ended:
            self.meter.finished(1, self.now)
            if not job.resumed and self.random.random() < AGAIN:
                again = make_job(job.request_id, submitted=self.now, resumed=True)
                self.queue.put([again])
                continue
            request = self.requests[int(job.request_id)]
            request.left -= 1
            self.outstanding[request.name] -= 1
            if request.left == 0:
                request.done = self.now
                del self.outstanding[request.name]
        if not len(self.queue) and not self.decoding:
            self.meter.rest(self.now)


@pytest.fixture(scope="module", params=[(0.8, 0), (4.0, 0), (4.0, 1)], ids=str)
def overload(request: pytest.FixtureRequest) -> tuple[Overload, list[Request]]:
    load, seed = request.param
    run = Overload(load, 400.0, seed)
    return run, run.run()


# A window's own time on a full device, twice: it may be decoded again.
OWN_S = 2 * (ENCODE_S + TOKENS * (STEP_S + STEP_WINDOW_S * SEATS))


def test_nobody_waits_twice_as_long_as_what_was_ahead_takes(
    overload: tuple[Overload, list[Request]],
) -> None:
    """Not to be begun, not to be done, and not for any turn of its windows: who comes later does
    not hold up who was there."""
    _, served = overload
    assert len(served) > 100
    assert {request.windows for request in served} == {1, 4, 20}
    longest_s = max(request.told_s for request in served) + OWN_S
    for request in served:
        done_s = request.done - request.taken
        assert request.begun - request.taken <= 2 * (request.told_s + 1), request
        assert done_s <= 2 * longest_s * request.turns, request
        if request.turns == 1:
            assert done_s <= 2 * (request.told_s + OWN_S), request


def test_a_window_that_is_decoded_again_waits_for_a_place_and_for_no_newcomer(
    overload: tuple[Overload, list[Request]],
) -> None:
    run, _ = overload
    assert len(run.resumed_s) > 50
    assert max(run.resumed_s) < 10  # while newcomers went ahead of some it was 52
