"""Recordings side by side: turns, and files that cost a worker."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from service.audio import reader as reader_module
from service.audio.reader import AudioReader, _Turn, _Turns
from service.errors import InvalidAudio
from service.metrics import Metrics
from service.types import Audio, Window
from tests.harness import LOW_HZ, request, until, wav

from .processes import has_samples


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_is_slow_gives_way_and_only_so_many_may() -> None:
    async def scenario() -> None:
        turns = _Turns(1, num_aside=2)
        taken: list[_Turn] = []
        leave = asyncio.Event()

        async def take() -> None:
            async with _Turn(turns) as turn:
                taken.append(turn)
                await leave.wait()

        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(take())
            for num in (1, 2, 3, 3):
                await settled()
                assert len(taken) == num
                taken[-1].give_way()
                taken[0].give_way()  # again: once is enough
            leave.set()
        assert len(taken) == 5
        assert turns.num_aside == 2
        assert turns.free._value == 1

    asyncio.run(scenario())


def test_hearing_takes_one_thread_and_leaves_the_models_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, hearing = torch.get_num_threads(), []

    def split(audio: Audio, vad: bool) -> list[Window]:
        hearing.append(torch.get_num_threads())
        return []

    async def scenario() -> None:
        reader = AudioReader(1, 60, Metrics())
        try:
            await reader.read(wav((LOW_HZ, 1)), request())
        finally:
            reader.close()

    monkeypatch.setattr(reader_module, "split", split)
    try:
        torch.set_num_threads(3)  # as the model's thread does, and it is what new threads get
        asyncio.run(scenario())
        assert (hearing, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(own)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_what_a_recording_cost_is_counted(long_file: Path) -> None:
    metrics = Metrics()

    def lost() -> float | None:
        return metrics.registry.get_sample_value(
            "winnow_audio_workers_lost_total", {"reason": "crashed"}
        )

    async def scenario() -> None:
        reader = AudioReader(1, 24 * 3600, metrics)
        reader.start()
        try:
            await reader.read(wav((LOW_HZ, 1)), request())
            (pid,) = reader.worker_pids
            await until(lambda: not has_samples(pid))  # it lets go of what it has answered
            with long_file.open("rb") as file:
                work = asyncio.create_task(reader.read(file, request()))
                await until(lambda: has_samples(pid))
                os.kill(pid, signal.SIGKILL)
                with pytest.raises(InvalidAudio):
                    await work
            assert lost() == 1
            assert (await reader.read(wav((LOW_HZ, 1)), request())).duration_s == 1
        finally:
            reader.close()

    asyncio.run(scenario())
