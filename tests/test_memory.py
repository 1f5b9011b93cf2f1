"""A long-lived process does not keep what it has freed."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path

import pytest

from service.memory import give_back_regularly, held_memory, here_to_stay, usable_memory

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


LOADED = """
from service.config import ServerConfig
from service.memory import give_back, held_memory
from service.families.load import load_served

model = load_served(ServerConfig(model="whisper-base", device="cpu", threads=1))
before = held_memory()
give_back()
print((before - held_memory()) // 1_000_000)
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_freed_memory_goes_back() -> None:
    run(HELD)


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
def test_a_model_that_is_loaded_holds_nothing_of_the_file_it_came_from() -> None:
    assert int(run(LOADED)) < 40  # of 145 MB in float16, and twice that as it is packed


def test_it_ends_where_memory_cannot_be_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    asyncio.run(asyncio.wait_for(give_back_regularly(), 10))


def test_what_stays_is_not_searched_for_garbage_while_it_is_made() -> None:
    with here_to_stay():
        within = gc.isenabled()
    assert (within, gc.isenabled()) == (False, True)


MACHINE = {"proc/meminfo": "MemTotal:       16000000 kB\nMemFree:         1000 kB\n"}
V1 = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n"


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        ({}, 16_384_000_000),
        ({"proc/self/cgroup": "0::/"}, 16_384_000_000),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max\n"}, 16_384_000_000),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "2147483648\n"}, 2**31),
        # A pod's limit holds for its containers, and the tightest of all counts.
        (
            {
                "proc/self/cgroup": "0::/pod/one\n",
                "sys/fs/cgroup/pod/one/memory.max": "max\n",
                "sys/fs/cgroup/pod/memory.max": "1000000\n",
            },
            1_000_000,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000000\n",
                "sys/fs/cgroup/cpu/memory.limit_in_bytes": "5\n",
            },
            1_000_000,
        ),
        # Version 1 without a limit.
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            16_384_000_000,
        ),
    ],
)
def test_a_containers_limit_is_what_there_is(files: dict[str, str], usable: int) -> None:
    assert usable_memory(lambda path: {**MACHINE, **files}.get(path, "")) == usable


def test_a_system_without_these_files() -> None:
    assert usable_memory(lambda _: "") == held_memory(lambda _: "") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_this_process_holds() -> None:
    assert 10_000_000 < held_memory() < usable_memory()
