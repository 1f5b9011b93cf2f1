"""A long-lived process does not keep what it has freed."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path

import pytest

from service.memory import give_back_regularly, here_to_stay

HELD = """
import asyncio, ctypes
from pathlib import Path
from service.memory import give_back_regularly

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

# Blocks small enough for the heap, and one at its end that keeps it from shrinking by itself.
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
*blocks, last = [libc.malloc(100_000) for _ in range(2_000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks:
    libc.free(block)
before = megabytes()

async def run():
    task = asyncio.create_task(give_back_regularly(0.01))
    while before - megabytes() < 150:
        await asyncio.sleep(0.01)
    task.cancel()

asyncio.run(asyncio.wait_for(run(), 60))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_freed_memory_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELD],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_it_ends_where_memory_cannot_be_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    asyncio.run(asyncio.wait_for(give_back_regularly(), 10))


def test_what_stays_is_not_searched_for_garbage_while_it_is_made() -> None:
    with here_to_stay():
        within = gc.isenabled()
    assert (within, gc.isenabled()) == (False, True)
