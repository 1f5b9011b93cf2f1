"""Requests that cannot be done, that wait, and that must not harm each other."""

from __future__ import annotations

import asyncio
import io
import weakref
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np
import pytest
import soundfile
import torch

from service.audio.reader import AudioReader
from service.audio.workers import WorkerPool
from service.config import ServerConfig
from service.engine.engine import Engine
from service.errors import EngineError, InvalidAudio, NotReady, QueueFull, TooLarge
from service.families.fake import FakeModel
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.profiles import BUILT_IN
from service.types import SAMPLE_RATE, Audio, Job, Samples, Transcript
from tests.harness import (
    HIGH_HZ,
    LOW_HZ,
    READY_S,
    HeldDevice,
    Service,
    held_workers,
    request,
    running,
    transcribe,
    until,
    wav,
)


def test_bytes_that_are_not_audio_are_refused(service: Service) -> None:
    with pytest.raises(InvalidAudio):
        transcribe(service, io.BytesIO(b"no audio at all" * 99), request())


def test_nothing_is_read_while_the_model_loads() -> None:
    metrics, config = Metrics().of("fake"), ServerConfig()
    reader = AudioReader(1, 60, metrics.every)
    engine = Engine(FakeModel, config, metrics)
    pipeline = Pipeline(engine, config, metrics, BUILT_IN, reader)
    source = wav((LOW_HZ, 1))
    with pytest.raises(NotReady):
        asyncio.run(pipeline.transcribe(source, request()))
    assert source.tell() == 0


def test_nothing_is_read_while_the_engine_drains() -> None:
    with running() as service:
        service.engine.drain(READY_S)
        source = wav((LOW_HZ, 1))
        with pytest.raises(NotReady, match="shutting down"):
            transcribe(service, source, request())
        assert source.tell() == 0


def test_more_windows_than_the_queue_can_ever_hold_are_too_large() -> None:
    with running(max_queue_windows=1) as service, pytest.raises(TooLarge):
        transcribe(service, wav((LOW_HZ, 40)), request())


def test_a_full_queue_refuses_the_newcomer_only() -> None:
    held = HeldDevice()

    async def scenario(service: Service) -> tuple[Transcript, Transcript]:
        first = asyncio.create_task(service.pipeline.transcribe(wav((LOW_HZ, 1)), request()))
        await until(held.reached.is_set)
        ask = request()
        second = asyncio.create_task(service.pipeline.transcribe(wav((LOW_HZ, 1)), ask))
        await until(lambda: service.sample("winnow_queue_windows") == 1)
        with pytest.raises(QueueFull) as full:
            await service.pipeline.transcribe(wav((LOW_HZ, 1)), request())
        assert full.value.retry_after_s > 0
        held.release.set()
        return await asyncio.gather(first, second)

    with running(FakeModel(fail_encode_when=held), max_queue_windows=1) as service:
        assert all(answer.text for answer in asyncio.run(scenario(service)))


def test_more_recordings_than_may_wait_to_be_read_are_refused() -> None:
    async def scenario(service: Service) -> list[Transcript]:
        most = 8 * 2 + 112
        with held_workers(service):
            tasks = [
                asyncio.create_task(service.pipeline.transcribe(wav((LOW_HZ, 1)), request()))
                for _ in range(most)
            ]
            await asyncio.sleep(0)
            refused = wav((LOW_HZ, 1))
            with pytest.raises(QueueFull, match="128 recordings wait") as full:
                await service.pipeline.transcribe(refused, request(timeout_s=1))
            assert 1 <= full.value.retry_after_s <= 5
            assert refused.tell() == 0
            tasks.pop().cancel()  # who leaves makes room
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(service.pipeline.transcribe(refused, request())))
            await asyncio.sleep(0)
        return await asyncio.gather(*tasks)

    with running(audio_threads=2) as service:
        assert all(answer.text for answer in asyncio.run(scenario(service)))
        assert transcribe(service, wav((LOW_HZ, 1)), request()).text


class RememberingEngine(Engine):
    """Keeps what turns are taken by, for each submission."""

    def submit(self, jobs: Sequence[Job], *, admitted: bool = False) -> None:
        self.turns = [*getattr(self, "turns", []), {job.request_id for job in jobs}]
        self.windows = [job.window for job in jobs]
        super().submit(jobs, admitted=admitted)


def test_the_channels_of_a_call_are_heard_side_by_side() -> None:
    both = np.stack([np.frombuffer(wav((hz, 70)).read(), "<i2", offset=44) for hz in (300, 4000)])
    call = io.BytesIO()
    soundfile.write(call, both.T, SAMPLE_RATE, format="WAV")
    call.seek(0)
    with running(engine_class=RememberingEngine) as service:
        transcribe(service, call, request(split_channels=True, temperatures=()))
        assert isinstance(service.engine, RememberingEngine)
        windows = service.engine.windows
        assert {window.channel for window in windows} == {0, 1}
        assert [window.index for window in windows] == list(range(len(windows)))
        starts = [window.start_s for window in windows]
        assert starts == sorted(starts)


def test_every_request_takes_turns_of_its_own() -> None:
    with running(engine_class=RememberingEngine) as service:
        for _ in range(2):
            transcribe(service, wav((LOW_HZ, 70)), request(temperatures=()))
        assert isinstance(service.engine, RememberingEngine)
        first, second = service.engine.turns
        assert len(first) == len(second) == 1
        assert first != second


def test_a_recording_is_let_go_once_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldDevice()
    recordings: list[weakref.ref[Samples]] = []
    decode = WorkerPool.decode

    async def remembered(
        self: WorkerPool, source: BinaryIO, split_channels: bool, on_slow: Callable[[], object]
    ) -> list[Audio]:
        channels = await decode(self, source, split_channels, on_slow)
        recordings.append(weakref.ref(channels[0].samples))
        return channels

    async def scenario(service: Service) -> None:
        work = asyncio.create_task(service.pipeline.transcribe(wav((LOW_HZ, 40)), request()))
        await until(held.reached.is_set)
        await until(lambda: recordings[0]() is None)
        held.release.set()
        assert (await work).duration == 40

    monkeypatch.setattr(WorkerPool, "decode", remembered)
    with running(FakeModel(fail_encode_when=held)) as service:
        asyncio.run(scenario(service))


class BrieflyFullEngine(Engine):
    """Has no room at the second submission, whatever waits: a moment that is hard to time."""

    num_submissions = 0

    def submit(self, jobs: Sequence[Job], *, admitted: bool = False) -> None:
        self.num_submissions += 1
        if self.num_submissions == 2:
            raise QueueFull("the queue is full", retry_after_s=0.01)
        super().submit(jobs, admitted=admitted)


class DrainingAfterFirstEngine(Engine):
    """Begins to drain once the request's windows are in."""

    def submit(self, jobs: Sequence[Job], *, admitted: bool = False) -> None:
        super().submit(jobs, admitted=admitted)
        self.begin_drain()


def test_a_window_is_decoded_again_in_a_drain_too() -> None:
    with running(engine_class=DrainingAfterFirstEngine) as service:
        asked = request("fast", temperatures=(0.0,))
        answer = transcribe(service, wav((LOW_HZ, 29)), asked)
        assert len(answer.fallbacks) == 1
        assert answer.kept_frames == answer.total_frames


class DrainingBeforeEachEngine(Engine):
    """Begins to drain while the audio is decoded: a moment that is hard to time."""

    def submit(self, jobs: Sequence[Job], *, admitted: bool = False) -> None:
        self.begin_drain()
        super().submit(jobs, admitted=admitted)


def test_a_drain_answers_what_is_still_being_read() -> None:
    with running(engine_class=DrainingBeforeEachEngine) as service:
        assert transcribe(service, wav((LOW_HZ, 2)), request()).text
        with pytest.raises(NotReady, match="shutting down"):
            transcribe(service, wav((LOW_HZ, 2)), request())


def test_a_window_decoded_again_waits_for_room_in_a_full_queue() -> None:
    with running(engine_class=BrieflyFullEngine) as service:
        asked = request("fast", temperatures=(0.0,))
        answer = transcribe(service, wav((LOW_HZ, 29)), asked)
        assert isinstance(service.engine, BrieflyFullEngine)
        assert service.engine.num_submissions == 3
        assert len(answer.fallbacks) == 1
        assert answer.kept_frames == answer.total_frames


def test_a_failing_window_fails_its_request_and_no_other() -> None:
    def is_high(mel_FT: torch.Tensor) -> bool:
        return int(mel_FT.mean(dim=1).argmax()) > 40

    async def scenario(
        service: Service,
    ) -> tuple[Transcript | BaseException, Transcript | BaseException]:
        bad = service.pipeline.transcribe(wav((LOW_HZ, 40), (HIGH_HZ, 40)), request())
        good = service.pipeline.transcribe(wav((LOW_HZ, 70)), request())
        answers = await asyncio.gather(bad, good, return_exceptions=True)
        await until(lambda: service.sample("winnow_decoding_windows") == 0)
        return answers

    with running(FakeModel(fail_encode_when=is_high)) as service:
        bad, good = asyncio.run(scenario(service))
        assert isinstance(bad, EngineError)
        assert isinstance(good, Transcript)
        assert good.text
        assert service.engine.state == "ready"
        assert service.sample("winnow_queue_windows") == 0
