"""Whoever does not read what is written to them is let go, and what was kept for them with it."""

from __future__ import annotations

import asyncio


class Stalls:
    """Watches what is buffered for one connection until it has left or the connection ends."""

    def __init__(self, transport: asyncio.Transport, stall_s: float) -> None:
        self._transport = transport
        self._stall_s = stall_s
        self._timer: asyncio.TimerHandle | None = None
        self._left = 0

    def watch(self) -> None:
        """From now on, if anything is buffered, some of it has to leave every `stall_s`."""
        if self._timer is None and (left := self._transport.get_write_buffer_size()):
            self._left = left
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._stall_s, self._check)

    def stop(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer = None
        if self._transport.get_write_buffer_size() >= self._left:
            self._transport.abort()  # a mere close would wait for the reader
        else:
            self.watch()
