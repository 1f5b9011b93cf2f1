"""Files that cost a worker: an error of theirs, and nobody else's."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from service.audio.worker import MEMORY_MB
from service.errors import InvalidAudio, TooLarge
from tests.harness import until

from .files import by_soundfile, noise
from .processes import Pool, decoding, is_gone, resident, with_pool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

SOUND = by_soundfile(noise(3), "WAV")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_is_an_error_of_the_file_alone(how: signal.Signals, long_file: Path) -> None:
    async def scenario(pool: Pool) -> None:
        task, worker = await decoding(pool, long_file)
        beside = asyncio.create_task(pool.of(SOUND))
        os.kill(worker, how)
        with pytest.raises(InvalidAudio, match="crashes"):
            await task
        assert len(await beside) == 1
        assert pool.lost == ["crashed"]
        await until(lambda: is_gone(worker))
        assert len(await pool.of(SOUND)) == 1

    with_pool(scenario, size=2)


def test_a_worker_that_hangs_is_ended(long_file: Path) -> None:
    async def scenario(pool: Pool) -> None:
        task, worker = await decoding(pool, long_file)
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(InvalidAudio, match="gets nowhere"):
            await task
        assert pool.lost == ["stuck"]
        await until(lambda: is_gone(worker))
        assert len(await pool.of(SOUND)) == 1

    with_pool(scenario, hang_s=1.5)


def empty_frames(num: int) -> bytes:
    """An amr of frames that say there is nothing in them."""
    return b"#!AMR\n" + b"\x7c" * num


def test_a_file_of_which_nothing_comes_is_given_up() -> None:
    """Sound grants processor time: the longer file is read to its end."""
    longer = by_soundfile(np.zeros(1800 * 8_000, np.float32), "FLAC", rate=8_000)

    async def scenario(pool: Pool) -> None:
        with pytest.raises(InvalidAudio, match="gets nowhere"):
            await pool.of(empty_frames(4 << 20))
        assert pool.lost == ["stuck"]
        (audio,) = await pool.of(longer)
        assert audio.duration_s == 1800

    with_pool(scenario, free_cpu_s=0.2)


def test_a_slow_file_is_told_of_and_another_worker_is_ready() -> None:
    async def scenario(pool: Pool) -> None:
        slow = asyncio.Event()
        source = io.BytesIO(empty_frames(16 << 20))
        task = asyncio.create_task(pool.decode(source, False, slow.set))
        await slow.wait()
        assert len(pool.pids) == 2
        task.cancel()
        await asyncio.wait({task})

    with_pool(scenario)


def test_a_file_that_swells_its_worker_is_refused() -> None:
    """Four kilobytes that declare eighty million samples."""
    data = declared(10_000_000, 8)
    assert len(data) < 5_000

    async def scenario(pool: Pool) -> int:
        await pool.of(SOUND)
        (worker,) = pool.pids
        most = 0

        async def watch() -> None:
            nonlocal most
            while not is_gone(worker):
                most = max(most, resident(worker))
                await asyncio.sleep(0.001)

        watching = asyncio.create_task(watch())
        with pytest.raises((InvalidAudio, TooLarge)):
            await pool.of(data)
        watching.cancel()
        assert len(await pool.of(SOUND)) == 1
        return most

    assert with_pool(scenario) < (MEMORY_MB + 100) * 2**20


def declared(num_samples: int, num_tracks: int) -> bytes:
    """An mp4 without the samples that its tables declare."""

    def box(name: bytes, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return struct.pack(">I", 8 + len(content)) + name + content

    def full(name: bytes, *parts: bytes) -> bytes:
        return box(name, bytes(4), *parts)

    unit = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    entry = box(
        b"sowt", bytes(6), b"\0\1", bytes(8), struct.pack(">HHHHI", 1, 16, 0, 0, 16_000 << 16)
    )
    tables = box(
        b"stbl",
        full(b"stsd", struct.pack(">I", 1), entry),
        full(b"stts", struct.pack(">III", 1, num_samples, 2)),
        full(b"stsc", struct.pack(">IIII", 1, 1, num_samples, 1)),
        full(b"stsz", struct.pack(">II", 1, num_samples)),
        full(b"stco", struct.pack(">II", 1, 0)),
    )
    url = struct.pack(">I", 12) + b"url \0\0\0\1"
    media = box(
        b"mdia",
        full(b"mdhd", struct.pack(">IIII", 0, 0, 16_000, 16_000), b"\x55\xc4\0\0"),
        full(b"hdlr", bytes(4), b"soun", bytes(13)),
        box(
            b"minf",
            full(b"smhd", bytes(4)),
            box(b"dinf", full(b"dref", struct.pack(">I", 1), url)),
            tables,
        ),
    )
    header = struct.pack(">IIIII", 0, 0, 1, 0, 1000) + bytes(8) + b"\0\0\0\0\1\0\0\0" + unit
    track = box(b"trak", box(b"tkhd", b"\0\0\0\7", header, bytes(8)), media)
    movie = struct.pack(">IIIIIH", 0, 0, 1000, 1000, 0x10000, 0x100) + bytes(10) + unit
    tail = bytes(24) + struct.pack(">I", 2)
    return (
        box(b"ftyp", b"isom", bytes(4), b"isom")
        + box(b"moov", full(b"mvhd", movie, tail), track * num_tracks)
        + box(b"mdat", bytes(1000))
    )


def test_an_idle_worker_that_is_gone_is_not_the_next_files_fault() -> None:
    async def scenario(pool: Pool) -> None:
        await pool.of(SOUND)
        for worker in pool.pids:
            os.kill(worker, signal.SIGKILL)
        assert len(await pool.of(SOUND)) == 1
        assert not pool.lost

    with_pool(scenario)
