"""Audio workers in tests, and what Linux tells of their processes."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from service.audio.workers import WorkerPool
from service.types import Audio
from tests.harness import until

T = TypeVar("T")


def has_samples(pid: int) -> bool:
    """Whether an audio worker is in the midst of a recording that has a file of its own."""
    folder = Path(f"/proc/{pid}/fd")
    try:
        return any(
            os.readlink(entry).startswith("/memfd:") and entry.stat().st_size
            for entry in folder.iterdir()
        )
    except OSError:
        return False


def is_gone(pid: int) -> bool:
    """Ended, and its status was asked for."""
    return not Path(f"/proc/{pid}").exists()


def resident(pid: int) -> int:
    """Bytes in memory; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def is_dead(pid: int) -> bool:
    """Gone, or only its status is left: whose child it is now is not ours to say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def with_pool(scenario: Callable[[Pool], Awaitable[T]], size: int = 1, **limits: float) -> T:
    async def run() -> T:
        pool = Pool(size, **limits)
        try:
            return await scenario(pool)
        finally:
            pool.close()

    return asyncio.run(run())


class Pool(WorkerPool):
    """Remembers what was lost."""

    def __init__(self, size: int = 1, max_seconds: float = 24 * 3600, **limits: float) -> None:
        self.lost: list[str] = []
        super().__init__(size, max_seconds, self.lost.append, **limits)

    async def of(self, data: bytes, split: bool = False) -> list[Audio]:
        return await self.decode(io.BytesIO(data), split, lambda: None)


async def decoding(pool: Pool, path: Path) -> tuple[asyncio.Task[list[Audio]], int]:
    """A task that decodes a file, and the process that is in the midst of it."""

    async def work() -> list[Audio]:
        with path.open("rb") as file:
            return await pool.decode(file, False, lambda: None)

    task = asyncio.create_task(work())
    await until(lambda: any(map(has_samples, pool.pids)))
    return task, next(filter(has_samples, pool.pids))
