"""Engines that share a device take turns on it."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """A lock for `with`, first come, first served: who has just let go waits for all who came
    meanwhile. (`threading.Lock` goes to whoever is quickest, which is the one that is running.)"""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # it stays taken
            else:
                self._taken = False
