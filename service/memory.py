"""Memory that was freed goes back to the system."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 30.0


@contextmanager
def here_to_stay() -> Iterator[None]:
    """What is made inside, as modules are, is not searched for garbage meanwhile.

    Searching it again and again while it grows is a tenth of the time that imports take.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def give_back_regularly(every_s: float = EVERY_S) -> None:
    """Runs until it is cancelled; returns at once where the C library cannot give memory back.

    glibc keeps what was freed between blocks that are in use. Under recordings of all lengths, on
    several threads, a process grows to twice what it holds, for as long as nobody asks.
    """
    trim = _malloc_trim()
    while trim is not None:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(trim, 0)


def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim
