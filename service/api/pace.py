"""Uploads that are being read: so many, so much of them, and none too slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from service.config import ServerConfig
from service.errors import QueueFull, TooSlow

RETRY_AFTER_S = 5.0
SMALL_BYTES = 4 * 1024 * 1024  # so much each may always send: it stays in memory
SLOW_AFTER_S = 1.0  # who has kept us waiting so much longer than the least rate gives way


class Pace:
    """One upload. Waiting for it uses up its credit, and what comes earns it back.

    A second of waiting costs a second, a byte earns 1/rate of one, and no credit is more than
    `stall_s`: so it may stall that long, but not trickle below the rate for longer. Only the time
    in which somebody waits for the sender counts.
    """

    def __init__(self, declared_bytes: int, stall_s: float, least_bytes_s: float) -> None:
        self.received_bytes = 0
        self._declared_bytes = declared_bytes
        self._stall_s = stall_s
        self._least_bytes_s = least_bytes_s
        self._credit_s = stall_s
        self._waiting: asyncio.Timeout | None = None
        self._since_s = 0.0

    def owed_s(self) -> float:
        """How long it has kept us waiting beyond the least rate."""
        waited_s = 0.0 if self._waiting is None else _now() - self._since_s
        return self._stall_s - self._credit_s + waited_s

    def claimed_bytes(self) -> int:
        """What it has sent, or what it has announced, as long as it goes on sending."""
        if self.owed_s() >= SLOW_AFTER_S:
            return self.received_bytes
        return max(self.received_bytes, self._declared_bytes)

    def give_way(self) -> bool:
        """Ends it as too slow, if it is being waited for and slow; whether it was."""
        if self._waiting is None or self._waiting.expired() or self.owed_s() < SLOW_AFTER_S:
            return False
        self._waiting.reschedule(_now())
        return True

    async def next(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        """The next piece, or None after the last. Raises TooSlow."""
        self._since_s = _now()
        try:
            async with asyncio.timeout(self._credit_s) as self._waiting:
                piece = await anext(pieces, None)
        except TimeoutError:
            raise TooSlow(
                f"The upload stalled, or came at less than {self._least_bytes_s:g} bytes a second."
            ) from None
        finally:
            self._waiting = None
        self._credit_s -= _now() - self._since_s
        if piece is not None:
            self.received_bytes += len(piece)
            earned_s = len(piece) / self._least_bytes_s
            self._credit_s = min(self._stall_s, self._credit_s + earned_s)
        return piece


class Uploads:
    """All that are being read. For the event loop only."""

    def __init__(self, config: ServerConfig) -> None:
        self._max_uploads = config.max_uploads
        self._max_bytes = config.max_uploading_mb * 1024 * 1024
        self._stall_s = config.stall_seconds
        self._least_bytes_s = float(config.min_upload_bytes_per_second)
        self._reading: set[Pace] = set()

    @contextmanager
    def reading(self, declared_bytes: int) -> Iterator[Pace]:
        """A place for an upload. Raises QueueFull where there is none.

        Where all places are taken the slowest gives way, if it is slow at all. A small upload
        always has room, and so has one alone.
        """
        if len(self._reading) >= self._max_uploads and not self._slowest_gives_way():
            raise QueueFull("Too many uploads at once.", RETRY_AFTER_S)
        claimed = sum(one.claimed_bytes() for one in self._reading)
        if declared_bytes > SMALL_BYTES and claimed and claimed + declared_bytes > self._max_bytes:
            raise QueueFull("Too much is being uploaded at once.", RETRY_AFTER_S)
        pace = Pace(declared_bytes, self._stall_s, self._least_bytes_s)
        self._reading.add(pace)
        try:
            yield pace
        finally:
            self._reading.discard(pace)

    def check_room(self, grown: Pace) -> None:
        """Raises QueueFull for the upload whose growth is too much for all together."""
        if grown.received_bytes <= SMALL_BYTES:
            return
        others = sum(one.received_bytes for one in self._reading if one is not grown)
        if others and others + grown.received_bytes > self._max_bytes:
            raise QueueFull("Too much is being uploaded at once.", RETRY_AFTER_S)

    def _slowest_gives_way(self) -> bool:
        slowest = max(self._reading, key=Pace.owed_s)
        if not slowest.give_way():
            return False
        self._reading.discard(slowest)
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()
