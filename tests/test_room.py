"""Recordings that wait for room in a full queue, as files of a folder do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import BinaryIO

import pytest

from service.audio.workers import WorkerPool
from service.engine.engine import Engine
from service.errors import QueueFull
from service.families.fake import FakeModel
from service.types import Audio, Job, Transcript
from tests.harness import LOW_HZ, READY_S, HeldDevice, Service, request, running, until, wav


class CountingEngine(Engine):
    """Counts how often it had no room."""

    num_refusals = 0

    def submit(self, jobs: Sequence[Job], *, admitted: bool = False) -> None:
        try:
            super().submit(jobs, admitted=admitted)
        except QueueFull as full:
            self.num_refusals += 1
            full.retry_after_s = 0.01
            raise


def test_what_waits_for_room_is_decoded_once_and_few_wait_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = HeldDevice()
    decoded: list[BinaryIO] = []
    decode = WorkerPool.decode

    async def counted(
        self: WorkerPool, source: BinaryIO, split_channels: bool, on_slow: Callable[[], object]
    ) -> list[Audio]:
        decoded.append(source)
        return await decode(self, source, split_channels, on_slow)

    async def scenario(service: Service) -> list[Transcript]:
        engine = service.engine
        assert isinstance(engine, CountingEngine)
        asked = request(wait_for_room=True)
        work = [
            asyncio.create_task(service.pipeline.transcribe(wav((LOW_HZ, 1)), asked))
            for _ in range(60)
        ]
        # One on the device, one in the queue; two decoded and waiting, the rest not yet begun.
        await until(held.reached.is_set)
        await until(lambda: service.sample("winnow_queue_windows") == 1)
        await until(lambda: len(decoded) >= 4)
        num_before = engine.num_refusals
        await until(lambda: engine.num_refusals >= num_before + 20)
        assert len(decoded) == 4
        held.release.set()
        return await asyncio.gather(*work)

    monkeypatch.setattr(WorkerPool, "decode", counted)
    with running(
        FakeModel(fail_encode_when=held),
        CountingEngine,
        max_queue_windows=1,
        max_batch_windows=1,
        audio_threads=2,
    ) as service:
        assert all(answer.text for answer in asyncio.run(scenario(service)))
        assert len(decoded) == 60


def test_who_stops_waiting_for_room_leaves_it_to_the_next() -> None:
    held = HeldDevice()

    async def scenario(service: Service) -> None:
        engine = service.engine
        assert isinstance(engine, CountingEngine)
        asked = request(wait_for_room=True, timeout_s=READY_S)
        ask = [service.pipeline.transcribe(wav((LOW_HZ, 1)), asked) for _ in range(4)]
        first, second, leaver, last = [asyncio.create_task(one) for one in ask]
        await until(held.reached.is_set)
        await until(lambda: service.sample("winnow_queue_windows") == 1)
        num_before = engine.num_refusals
        await until(lambda: engine.num_refusals > num_before)
        leaver.cancel()
        held.release.set()
        assert all(one.text for one in await asyncio.gather(first, second, last))

    with running(
        FakeModel(fail_encode_when=held),
        CountingEngine,
        max_queue_windows=1,
        max_batch_windows=1,
        audio_threads=1,
    ) as service:
        asyncio.run(scenario(service))
