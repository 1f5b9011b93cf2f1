"""Decoding in processes of its own: the same samples, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from service.audio.decode import decode, decode_channels
from service.audio.shared import mapped
from service.errors import InvalidAudio, InvalidRequest, NotReady, TooLarge
from service.types import Audio
from tests.harness import until

from .files import by_libav, by_soundfile, noise, tone
from .processes import Pool, decoding, has_samples, is_dead, is_gone, resident, with_pool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

ROOT = Path(__file__).resolve().parents[2]


KINDS = {
    "wav": by_soundfile(noise(3), "WAV"),
    "float wav": by_soundfile(2 * noise(3), "WAV", "FLOAT", 44_100),
    "flac": by_soundfile(noise(3), "FLAC", rate=48_000, channels=2),
    "mp3": by_soundfile(tone(3, 44_100), "MP3", rate=44_100),
    "m4a": by_libav(tone(3, 44_100), "ipod", "aac", 44_100),
}


def test_the_samples_are_those_of_decoding_here() -> None:
    async def scenario(pool: Pool) -> None:
        for data in KINDS.values():
            (mixed,) = await pool.of(data)
            np.testing.assert_array_equal(mixed.samples, decode(io.BytesIO(data), 60).samples)
            assert mixed.samples.flags.writeable
            apart = await pool.of(data, split=True)
            here = decode_channels(io.BytesIO(data), 60)
            for there, expected in zip(apart, here, strict=True):
                np.testing.assert_array_equal(there.samples, expected.samples)

    with_pool(scenario)


def test_errors_and_losses_come_as_they_were_raised() -> None:
    sound = tone(2)
    sound[16_000] = np.nan
    damaged = by_soundfile(sound, "WAV", "FLOAT")

    async def scenario(pool: Pool) -> None:
        with pytest.raises(InvalidAudio, match="not an audio file"):
            await pool.of(b"no audio at all" * 99)
        with pytest.raises(TooLarge, match="limit of 5 seconds"):
            await pool.of(by_soundfile(tone(6), "FLAC"))
        with pytest.raises(InvalidRequest, match="at most 8 channels") as refusal:
            await pool.of(by_soundfile(tone(1), "WAV", channels=9), split=True)
        assert refusal.value.param == "channels"
        (audio,) = await pool.of(damaged)
        assert audio.losses == decode(io.BytesIO(damaged), 60).losses
        assert audio.losses[0].start == 1
        assert not pool.lost

    with_pool(scenario, max_seconds=5)


def test_a_worker_is_used_again_and_keeps_nothing() -> None:
    files = [*KINDS.values(), b"no audio at all" * 99]

    def held(pid: int) -> tuple[int, int]:
        return len(os.listdir(f"/proc/{pid}/fd")), resident(pid)

    async def scenario(pool: Pool) -> None:
        async def round_of_files() -> None:
            for data in files:
                try:
                    await pool.of(data)
                except InvalidAudio:
                    continue

        for _ in range(3):
            await round_of_files()
        (worker,) = pool.pids
        gc.collect()  # what other tests left
        await until(lambda: held(worker)[0] == 3)  # it lets go after it has answered
        here, there = held(os.getpid()), held(worker)
        for _ in range(40):
            await round_of_files()
        assert pool.pids == {worker}
        for pid, before in ((os.getpid(), here), (worker, there)):
            await until(lambda pid=pid, most=before[0]: held(pid)[0] <= most)  # type: ignore[misc]
            assert held(pid)[1] - before[1] < 16e6

    with_pool(scenario)


def test_a_request_that_ends_frees_its_worker(long_file: Path) -> None:
    async def scenario(pool: Pool) -> None:
        task, worker = await decoding(pool, long_file)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: is_gone(worker))
        assert not pool.lost
        assert len(await pool.of(KINDS["wav"])) == 1

    with_pool(scenario)


def test_many_at_once_get_each_their_own() -> None:
    pitches = [200.0 + 100 * n for n in range(8)]

    async def scenario(pool: Pool) -> list[list[Audio]]:
        files = [by_soundfile(tone(1, hertz=hertz), "FLAC") for hertz in pitches]
        answers = await asyncio.gather(*(pool.of(data) for data in files))
        assert len(pool.pids) == 2
        return answers

    for hertz, (audio,) in zip(pitches, with_pool(scenario, size=2), strict=True):
        assert np.abs(np.fft.rfft(audio.samples)).argmax() == hertz


def test_a_pool_that_closes_answers_what_it_is_decoding(long_file: Path) -> None:
    async def scenario(pool: Pool) -> None:
        task, _ = await decoding(pool, long_file)
        pids = pool.pids
        pool.close()
        with pytest.raises(NotReady, match="shutting down"):
            await task
        assert all(map(is_gone, pids))
        with pytest.raises(NotReady, match="shutting down"):
            await pool.of(KINDS["wav"])
        assert not pool.lost

    with_pool(scenario)


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_without_a_process_the_answer_is_an_error(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", python)

    async def scenario(pool: Pool) -> None:
        pool.start()
        with pytest.raises(NotReady, match="no process can be had"):
            await pool.of(KINDS["wav"])

    with_pool(scenario)


def test_a_worker_knows_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_API_KEY", "secret")

    async def scenario(pool: Pool) -> None:
        await pool.of(KINDS["wav"])
        (worker,) = pool.pids
        proc = Path(f"/proc/{worker}")
        assert b"secret" not in (proc / "environ").read_bytes()
        assert os.readlink(proc / "fd" / "2") == "/dev/null"
        assert "Max core file size        0 " in (proc / "limits").read_text()
        assert os.getsid(worker) != os.getsid(0)  # Ctrl-C does not reach it
        assert "libtorch" not in (proc / "maps").read_text()

    with_pool(scenario)


def test_workers_end_with_the_service(long_file: Path) -> None:
    """Idle or busy, when it is killed and can say nothing."""
    code = """
import asyncio, sys
from service.audio.workers import WorkerPool
async def main():
    pool = WorkerPool(2, 24 * 3600, print)
    pool.start()
    with open(sys.argv[1], "rb") as file:
        task = asyncio.create_task(pool.decode(file, False, lambda: None))
        await asyncio.sleep(0)
        print(*pool.pids, flush=True)
        await task
        await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(long_file)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    asyncio.run(until(lambda: any(map(has_samples, pids))))
    parent.kill()
    parent.wait()
    asyncio.run(until(lambda: all(is_dead(pid) for pid in pids)))


def test_an_upload_in_memory_stays_there() -> None:
    async def scenario(pool: Pool) -> None:
        with tempfile.SpooledTemporaryFile(1 << 20) as file:
            file.write(KINDS["wav"])
            for _ in range(2):
                (audio,) = await pool.decode(file, False, lambda: None)  # type: ignore[arg-type]
                assert audio.duration_s == 3
            assert file.name is None

    with_pool(scenario)


@pytest.mark.parametrize(
    ("channels", "samples"), [(1, 17), (2, 10), (-1, 4), (1, 1 << 40), (1 << 40, 1)]
)
def test_a_worker_is_not_believed(channels: int, samples: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(16 * 4))
        file.flush()
        with pytest.raises(ValueError, match="samples"):
            mapped(file.fileno(), 60, channels, samples)
