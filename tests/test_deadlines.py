"""Requests that end before they are done: late, cancelled, or given up by the engine."""

from __future__ import annotations

import asyncio

import pytest

from service.errors import DeadlineExceeded, NotReady
from service.families.fake import FakeModel
from tests.harness import (
    LOW_HZ,
    HeldDevice,
    Service,
    held_workers,
    request,
    running,
    transcribe,
    until,
    wav,
)


def test_a_passed_deadline_withdraws_the_work() -> None:
    held = HeldDevice()
    with running(FakeModel(fail_encode_when=held), max_batch_windows=1) as service:
        with pytest.raises(DeadlineExceeded, match=r"0\.5 seconds"):
            transcribe(service, wav((LOW_HZ, 100)), request(timeout_s=0.5))
        # The device still holds the first window; the others have left the queue.
        assert service.sample("winnow_queue_windows") == 0
        assert service.sample("winnow_cancelled_total", reason="deadline") == 1
        held.release.set()
        assert transcribe(service, wav((LOW_HZ, 1)), request()).text


def test_a_deadline_passes_while_audio_is_decoded_and_the_file_is_left_alone() -> None:
    with running(audio_threads=1) as service:
        source = wav((LOW_HZ, 600))
        with held_workers(service):
            stopped = service.reader.worker_pids
            with pytest.raises(DeadlineExceeded):
                transcribe(service, source, request(timeout_s=0.1))
            source.close()
            # The only worker was given up with its recording: there is another for this one.
            assert transcribe(service, wav((LOW_HZ, 1)), request()).text
            assert not stopped & service.reader.worker_pids


def test_a_cancelled_request_withdraws_its_work() -> None:
    held = HeldDevice()

    async def scenario(service: Service) -> None:
        work = asyncio.create_task(service.pipeline.transcribe(wav((LOW_HZ, 100)), request()))
        await until(held.reached.is_set)
        assert service.sample("winnow_queue_windows") > 0
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert service.sample("winnow_queue_windows") == 0
        held.release.set()
        assert (await service.pipeline.transcribe(wav((LOW_HZ, 1)), request())).text

    with running(FakeModel(fail_encode_when=held), max_batch_windows=1) as service:
        asyncio.run(scenario(service))
        assert service.sample("winnow_cancelled_total", reason="deadline") == 0


def test_work_that_the_engine_gives_up_is_an_error_and_not_a_hang() -> None:
    held = HeldDevice()

    async def scenario(service: Service) -> None:
        work = asyncio.create_task(service.pipeline.transcribe(wav((LOW_HZ, 1)), request()))
        await until(held.reached.is_set)
        await asyncio.to_thread(service.engine.drain, 0.0)
        with pytest.raises(NotReady):
            await work
        held.release.set()

    with running(FakeModel(fail_encode_when=held)) as service:
        asyncio.run(scenario(service))
