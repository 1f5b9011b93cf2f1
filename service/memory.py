"""Memory: how much there is for this process, and what was freed goes back to the system."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.cgroups import Read, folders, reader

EVERY_S = 30.0


def usable_memory(read: Read | None = None) -> int:
    """Bytes: the machine's, or the tightest limit of this process's cgroups; 0 where neither is
    known.

    Limits are `memory.max` of version 2 and `memory.limit_in_bytes` of version 1 (kernel
    documentation, admin-guide/cgroup-v2 and cgroup-v1/memory).
    """
    read = read or reader()
    machine = read("proc/meminfo").partition("MemTotal:")[2].split()[:1]
    limits = [int(kib) * 1024 for kib in machine]
    for version, folder in folders("memory", read):
        limit = read(f"{folder}/memory.max" if version == 2 else f"{folder}/memory.limit_in_bytes")
        if limit.strip().isdecimal():  # without one it is `max`, or a number beyond any machine
            limits.append(int(limit))
    return min(limits, default=0)


def held_memory(read: Read | None = None) -> int:
    """Bytes of this process that are resident; 0 where that is not known."""
    pages = (read or reader())("proc/self/statm").split()[1:2]
    return int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


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
    while _malloc_trim() is not None:
        await asyncio.sleep(every_s)
        await asyncio.to_thread(give_back)


def give_back() -> None:
    """What was freed goes back to the system, where the C library can."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim
