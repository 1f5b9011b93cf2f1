"""Locust users of one profile that send recordings in an open loop.

A Locust user waits for its answer before it sends again: a server that stalls is then asked less,
and looks better than it is. Here a user only starts requests when they are due; each waits for
its answer in a greenlet of its own.
"""

from __future__ import annotations

import itertools
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.pool import Group
from locust import FastHttpUser, task
from locust.exception import StopUser

from loadtest.audio import Recording
from loadtest.outcomes import OK, Visit

PATH = "/transcribe"
MOST_OPEN = 10_000  # connections at a time; each needs a file descriptor
HEADERS = {
    "content-type": "application/octet-stream",
    # Every request stands for a client of its own, and none finds a connection just closed.
    "connection": "close",
}


class SpeechUser(FastHttpUser):
    """Sends what its open loop says until that ends, then waits for the answers and stops."""

    abstract = True
    profile = "dense"
    language: str | None = None
    concurrency = MOST_OPEN
    loop: OpenLoop

    def open_loop(self) -> OpenLoop:
        """What to send, when, and who is told what came of it."""
        raise NotImplementedError

    def on_start(self) -> None:
        self.loop = self.open_loop()

    @task
    def send_next(self) -> None:
        if not self.loop.send_next():
            self.loop.join()
            raise StopUser

    def on_stop(self) -> None:
        self.loop.close(self.environment.stop_timeout or 0)

    def post(self, recording: Recording, request_id: str) -> tuple[int, str, str, float | None]:
        """Status (0 without an answer), text, error, and seconds of Retry-After."""
        query = f"?profile={self.profile}" + (f"&language={self.language}" if self.language else "")
        with self.client.post(
            PATH + query,
            data=recording.data,  # type: ignore[arg-type]  # bytes go through as they are
            headers={**HEADERS, "x-request-id": request_id},
            name=f"{PATH} {self.profile}",
            catch_response=True,
        ) as response:
            status = int(response.status_code or 0)
            if status == OK:
                return _read_text(response)
            error = getattr(response, "error", None) if status == 0 else None
            return status, "", type(error).__name__ if error else "", _retry_after(response)


class OpenLoop:
    """Sends each recording when it is due, whether or not earlier ones are answered.

    Times are seconds from its creation. `obey_share` of the refusals that name a `Retry-After`
    are obeyed: the client waits as told and comes back once, unless `ends_s` has passed by then.
    """

    def __init__(
        self,
        user: SpeechUser,
        due: Iterator[float],
        recordings: Iterator[Recording],
        on_visit: Callable[[Visit], None],
        *,
        obey_share: float = 0.0,
        ends_s: float = float("inf"),
        seed: int = 0,
    ) -> None:
        self._open_due_s: dict[int, float] = {}  # by a number of the request's own
        self._user = user
        self._due = due
        self._recordings = recordings
        self._on_visit = on_visit
        self._obey_share = obey_share
        self._ends_s = ends_s
        self._obedience = random.Random(seed)
        self._numbers = itertools.count()
        self._open = Group()
        self._began = time.perf_counter()

    def send_next(self) -> bool:
        """Waits until the next request is due and starts it; False when there is none."""
        due_s = next(self._due, None)
        if due_s is None:
            return False
        recording = next(self._recordings)
        # At least once, that answers are read even when it is late; and again where the loop's
        # clock was behind and woke it early.
        gevent.sleep(max(0.0, due_s - self._now()))
        while (early_s := due_s - self._now()) > 0:
            gevent.sleep(early_s)
        self._open.spawn(self._request, recording, due_s)
        return True

    @property
    def num_open(self) -> int:
        """Requests that wait for their answer."""
        return len(self._open_due_s)

    def num_overdue(self, limit_s: float) -> int:
        """Those that have waited for longer: their latency is not known, but it is more."""
        return sum(self._now() - due_s > limit_s for due_s in self._open_due_s.values())

    def join(self) -> None:
        """Waits for every answer."""
        self._open.join()

    def close(self, patience_s: float) -> None:
        """Waits for answers for this long, and drops the requests that are still open."""
        self._open.join(timeout=patience_s)
        self._open.kill()

    def _now(self) -> float:
        return time.perf_counter() - self._began

    def _request(self, recording: Recording, due_s: float) -> None:
        request_id = uuid.uuid4().hex  # the same when it comes back: so it is known again
        visit = self._visit(recording, due_s, request_id, returned=False)
        wait_s = visit.retry_after_s
        if not visit.refused or wait_s is None or self._obedience.random() >= self._obey_share:
            return
        back_s = self._now() + wait_s
        if back_s < self._ends_s:
            gevent.sleep(wait_s)
            self._visit(recording, back_s, request_id, returned=True)

    def _visit(
        self, recording: Recording, due_s: float, request_id: str, *, returned: bool
    ) -> Visit:
        late_s = self._now() - due_s
        number = next(self._numbers)
        self._open_due_s[number] = due_s
        status, text, error, retry_after_s = self._user.post(recording, request_id)
        visit = Visit(
            recording,
            due_s,
            late_s,
            self._now() - due_s,
            status,
            text,
            error,
            returned,
            retry_after_s,
        )
        del self._open_due_s[number]
        self._on_visit(visit)
        return visit


def _read_text(response: Any) -> tuple[int, str, str, float | None]:
    try:
        return OK, str(json.loads(response.content)["text"]), "", None
    except (ValueError, KeyError, TypeError):
        response.failure("the answer has no text")
        return 0, "", "the answer has no text", None


def _retry_after(response: Any) -> float | None:
    told = (response.headers or {}).get("retry-after", "") if response.status_code else ""
    return float(told) if told.isdigit() else None
