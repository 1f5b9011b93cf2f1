"""What a socket gave at once, handed on in slices, so that others have their turn between them.

A quarter of a megabyte arrives as one piece. Where it holds thousands of tiny chunks or messages
its parsing takes a second, in which nobody else is served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Slices:
    """Received bytes of one connection. Nothing is read from its socket while some are left."""

    def __init__(
        self, slice_bytes: int, feed: Callable[[bytes], None], is_held: Callable[[], bool]
    ) -> None:
        """`feed` takes a slice, while nobody says by `is_held` that it has to wait."""
        self._slice_bytes = slice_bytes
        self._feed = feed
        self._is_held = is_held
        self._left = b""
        self._at = 0
        self._turn: asyncio.Handle | None = None

    def attach(self, transport: asyncio.Transport) -> None:
        """The connection is there."""
        self._transport = transport

    @property
    def some_left(self) -> bool:
        return self._at < len(self._left)

    def add(self, data: bytes, *, cut: bool) -> None:
        """Hands `data` on after what is left: at once, or if it is to be `cut`, slice by slice."""
        if self.some_left:  # and its turn comes, or waits for `resume`
            self._left, self._at = self._left[self._at :] + data, 0
        elif cut and len(data) > self._slice_bytes:
            self._left, self._at = data, 0
            self._next()
        else:
            self._feed(data)

    def resume(self) -> None:
        """Reading may go on, if nothing else holds it: what is left first, then the socket."""
        if self._is_held():
            self._transport.pause_reading()
        elif self.some_left:
            self._schedule()
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def stop(self) -> None:
        """Forgets what is left."""
        self._left, self._at = b"", 0
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _schedule(self) -> None:
        self._transport.pause_reading()
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._turn = None
        if self._is_held() or not self.some_left:
            return
        begin, self._at = self._at, self._at + self._slice_bytes
        self._feed(self._left[begin : self._at])
        if self.some_left:
            self._schedule()
            return
        self._left, self._at = b"", 0
        self.resume()
