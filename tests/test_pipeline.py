"""One request through the real engine and audio room, on the fake model."""

from __future__ import annotations

import asyncio
import io
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile
import torch

from service.audio.decode import decode
from service.config import ServerConfig
from service.engine.engine import Engine
from service.errors import (
    ConfigError,
    DeadlineExceeded,
    EngineError,
    InvalidAudio,
    InvalidRequest,
    NotReady,
    QueueFull,
    TooLarge,
)
from service.metrics import Metrics
from service.model.fake import FakeModel
from service.model.protocol import ModelInfo
from service.pipeline import Pipeline
from service.profiles import BUILT_IN, Profile
from service.types import (
    SAMPLE_RATE,
    Audio,
    DecodeOptions,
    Job,
    Progress,
    Samples,
    TranscribeRequest,
    Transcript,
)

READY_S = 30.0
LOW_HZ, HIGH_HZ = 300.0, 4000.0


@dataclass(frozen=True, slots=True)
class Service:
    engine: Engine
    pipeline: Pipeline
    metrics: Metrics

    def sample(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def running(
    model: FakeModel | None = None,
    engine_class: type[Engine] = Engine,
    profiles: Mapping[str, Profile] = BUILT_IN,
    **settings: Any,
) -> Iterator[Service]:
    config = ServerConfig(**settings)
    metrics = Metrics()
    engine = engine_class(lambda: model or FakeModel(), config, metrics)
    pipeline = Pipeline(engine, config, metrics, profiles)
    engine.start()
    try:
        engine.wait_ready(READY_S)
        yield Service(engine, pipeline, metrics)
    finally:
        engine.stop()
        pipeline.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as started:
        yield started


def wav(*tones: tuple[float, float]) -> io.BytesIO:
    """A recording of (hertz, seconds) tones, 0 Hz for silence."""
    waves = [
        0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)
        for hertz, seconds in tones
    ]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(waves), SAMPLE_RATE, format="WAV")
    file.seek(0)
    return file


def request(profile: str = "dense", **more: Any) -> TranscribeRequest:
    options = DecodeOptions(**more.pop("options", {}))
    return TranscribeRequest(BUILT_IN[profile], options, **({"vad": False} | more))


def transcribe(service: Service, source: io.BytesIO, asked: TranscribeRequest) -> Transcript:
    return asyncio.run(service.pipeline.transcribe(source, asked))


class HeldDevice:
    """A predicate of the fake model that holds the device until it is released."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.release = threading.Event()

    def __call__(self, mel_FT: torch.Tensor) -> bool:
        self.reached.set()
        self.release.wait(READY_S)
        return False


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(READY_S):
        while not condition():
            await asyncio.sleep(0.005)


# A recording becomes a transcript


def test_a_recording_of_several_windows_becomes_one_transcript(service: Service) -> None:
    source = wav((LOW_HZ, 3), (0, 2), (HIGH_HZ, 4), (0, 31), (LOW_HZ, 2))
    answer = transcribe(service, source, request(options={"language": "de"}))
    assert answer.duration == pytest.approx(42)
    assert (answer.model, answer.profile, answer.language) == ("fake", "dense", "de")
    assert len(answer.segments) == 3
    first, second, third = answer.segments
    assert (first.start, first.end) == (0, 3)
    assert (second.start, second.end) == (5, 9)
    assert third.start == pytest.approx(40, abs=1)
    assert first.text != second.text
    assert answer.text == "".join(segment.text for segment in answer.segments).strip()
    assert answer.total_frames == answer.kept_frames == 3000
    assert answer.fallbacks == ()


def test_each_segment_has_its_own_tokens(service: Service) -> None:
    answer = transcribe(service, wav((LOW_HZ, 2), (0, 2), (HIGH_HZ, 3)), request())
    model = service.engine.model
    texts = [model.split_text(segment.tokens)[0].text for segment in answer.segments]
    assert texts == [segment.text for segment in answer.segments]


def test_a_sparse_profile_keeps_fewer_frames(service: Service) -> None:
    answer = transcribe(service, wav((LOW_HZ, 2)), request("fast"))
    assert (answer.kept_frames, answer.total_frames) == (600, 1500)
    assert answer.profile == "fast"


def test_a_request_is_measured() -> None:
    with running() as service:
        answer = transcribe(service, wav((LOW_HZ, 2)), request("balanced"))
        for stage in ("decode_audio", "queue", "mel", "encode", "decode", "total"):
            labels = {"stage": stage, "profile": "balanced"}
            assert service.sample("winnow_stage_seconds_count", **labels) == 1
            seconds = service.sample("winnow_stage_seconds_sum", **labels)
            assert seconds == getattr(answer.timings, stage)
        assert answer.timings.total >= answer.timings.decode_audio > 0
        assert answer.timings.encode > 0
        assert service.sample("winnow_audio_seconds_total", profile="balanced") == 2
        assert service.sample("winnow_real_time_factor_count", profile="balanced") == 1


@pytest.mark.parametrize(("asked", "answered"), [(None, "en"), ("fr", "fr")])
def test_silence_is_an_empty_transcript(service: Service, asked: str | None, answered: str) -> None:
    answer = transcribe(service, wav((0, 3)), request(vad=True, options={"language": asked}))
    assert (answer.text, answer.segments, answer.language) == ("", (), answered)
    assert (answer.total_frames, answer.kept_frames) == (0, 0)
    assert answer.duration == 3


def test_one_part_says_that_the_windows_were_accepted(service: Service) -> None:
    async def scenario() -> list[Progress]:
        source = wav((LOW_HZ, 40))
        parts = []
        async for part in service.pipeline.stream(source, request()):
            source.close()  # it is let go before the first part
            parts.append(part)
        return parts

    first, *parts, last = asyncio.run(scenario())
    assert first == Progress()
    assert last.transcript is not None
    assert "".join(part.text for part in parts) == last.transcript.text != ""
    assert tuple(s for part in parts for s in part.segments) == last.transcript.segments


def test_a_stream_that_is_closed_withdraws_its_work() -> None:
    held = HeldDevice()

    async def scenario(service: Service) -> None:
        stream = service.pipeline.stream(wav((LOW_HZ, 100)), request())
        assert await anext(stream) == Progress()
        await until(held.reached.is_set)
        assert service.sample("winnow_queue_windows") > 0
        await stream.aclose()
        assert service.sample("winnow_queue_windows") == 0
        held.release.set()
        assert (await service.pipeline.transcribe(wav((LOW_HZ, 1)), request())).text

    with running(FakeModel(fail_encode_when=held), max_batch_windows=1) as service:
        asyncio.run(scenario(service))


def test_a_reader_that_is_slow_is_not_interrupted(service: Service) -> None:
    """The deadline is the work's: it must not cancel what the reader does between two parts."""

    async def scenario() -> Progress:
        part = Progress()
        async for part in service.pipeline.stream(wav((LOW_HZ, 2)), request(timeout_s=2)):
            if part.text:
                await asyncio.sleep(2.5)
        return part

    assert asyncio.run(scenario()).transcript is not None


# The guard: test_fallback has the rest


def test_a_repetitive_window_is_decoded_again_until_nothing_is_left_to_try() -> None:
    with running() as service:
        source = wav((LOW_HZ, 29))  # one word 29 times
        answer = transcribe(service, source, request("fast"))
        assert {(f.window, f.reason) for f in answer.fallbacks} == {(0, "repetition")}
        assert [(f.profile, f.retry, f.temperature) for f in answer.fallbacks] == [
            ("fast", "fast-half", 0.0),
            ("fast-half", "dense", 0.0),
            *(("dense", "dense", temperature) for temperature in (0.2, 0.4, 0.6, 0.8, 1.0)),
        ]
        assert answer.kept_frames == answer.total_frames == 1500
        assert answer.segments[0].temperature == 0
        labels = {"profile": "fast", "reason": "repetition"}
        assert service.sample("winnow_fallbacks_total", **labels) == 7
        assert service.sample("winnow_windows_total", profile="fast") == 1
        assert service.sample("winnow_guarded_windows_total", profile="fast") == 1


# Requests that cannot be done


def test_bytes_that_are_not_audio_are_refused(service: Service) -> None:
    with pytest.raises(InvalidAudio):
        transcribe(service, io.BytesIO(b"no audio at all" * 99), request())


def test_nothing_is_read_while_the_model_loads() -> None:
    metrics, config = Metrics(), ServerConfig()
    pipeline = Pipeline(Engine(FakeModel, config, metrics), config, metrics, BUILT_IN)
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
    reading = threading.Event()

    class HeldFile(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            reading.wait(READY_S)
            return super().read(size)

    async def scenario(service: Service) -> list[Transcript]:
        most = 8 * 2 + 24
        held = HeldFile(wav((LOW_HZ, 1)).getvalue())
        sources = [held, HeldFile(held.getvalue()), *(wav((LOW_HZ, 1)) for _ in range(most - 2))]
        tasks = [
            asyncio.create_task(service.pipeline.transcribe(source, request()))
            for source in sources
        ]
        await asyncio.sleep(0)
        refused = wav((LOW_HZ, 1))
        try:
            with pytest.raises(QueueFull, match="40 recordings wait") as full:
                await service.pipeline.transcribe(refused, request(timeout_s=1))
            assert 1 <= full.value.retry_after_s <= 5
            assert refused.tell() == 0
            tasks.pop().cancel()  # who leaves makes room
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(service.pipeline.transcribe(refused, request())))
            await asyncio.sleep(0)
        finally:
            reading.set()
        return await asyncio.gather(*tasks)

    with running(audio_threads=2) as service:
        assert all(answer.text for answer in asyncio.run(scenario(service)))
        assert transcribe(service, wav((LOW_HZ, 1)), request()).text


class RememberingEngine(Engine):
    """Keeps what turns are taken by, for each submission."""

    def submit(self, jobs: Sequence[Job], *, admitted: bool = False) -> None:
        self.turns = [*getattr(self, "turns", []), {job.request_id for job in jobs}]
        super().submit(jobs, admitted=admitted)


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

    def remembered(source: BinaryIO, max_seconds: float) -> Audio:
        audio = decode(source, max_seconds)
        recordings.append(weakref.ref(audio.samples))
        return audio

    async def scenario(service: Service) -> None:
        work = asyncio.create_task(service.pipeline.transcribe(wav((LOW_HZ, 40)), request()))
        await until(held.reached.is_set)
        await until(lambda: recordings[0]() is None)
        held.release.set()
        assert (await work).duration == 40

    monkeypatch.setattr("service.pipeline.decode", remembered)
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
        assert len(answer.fallbacks) == 2
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
        assert service.engine.num_submissions == 4
        assert len(answer.fallbacks) == 2
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


# Deadlines and cancellation


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


class SlowFile(io.BytesIO):
    """Takes its time to read, and counts."""

    num_reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.num_reads += 1
        time.sleep(0.02)
        return super().read(size)


def test_a_deadline_passes_while_audio_is_decoded_and_the_file_is_left_alone() -> None:
    with running(audio_threads=1) as service:
        whole = wav((LOW_HZ, 600))
        source = SlowFile(whole.getvalue())
        with pytest.raises(DeadlineExceeded):
            transcribe(service, source, request(timeout_s=0.1))
        num_reads = source.num_reads
        assert num_reads > 0
        source.close()
        # The only audio thread takes this one after it has given the other up.
        assert transcribe(service, wav((LOW_HZ, 1)), request()).text
        assert source.num_reads == num_reads


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


# Names


def test_profiles_resolve_by_name(service: Service) -> None:
    assert service.pipeline.resolve_profile(None).name == "dense"
    assert service.pipeline.resolve_profile("fast") == BUILT_IN["fast"]
    with pytest.raises(InvalidRequest, match="dense, balanced, fast") as refused:
        service.pipeline.resolve_profile("turbo")
    assert refused.value.param == "profile"


@pytest.mark.parametrize(
    ("given", "code"), [(None, None), ("de", "de"), ("DE", "de"), (" German ", "de")]
)
def test_languages_resolve_by_code_and_name(
    service: Service, given: str | None, code: str | None
) -> None:
    assert service.pipeline.resolve_language(given) == code


def test_an_unknown_language_is_refused_with_the_valid_ones(service: Service) -> None:
    with pytest.raises(InvalidRequest, match="en, de, fr") as refused:
        service.pipeline.resolve_language("klingon")
    assert refused.value.param == "language"


class EnglishModel(FakeModel):
    """The fake model, as an English-only checkpoint presents itself."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, languages={"en": "english"}, multilingual=False)


def test_an_english_only_model_hears_english_and_does_not_translate() -> None:
    with running(EnglishModel()) as service:
        assert service.pipeline.resolve_language(None) == "en"
        assert service.pipeline.resolve_language("English") == "en"
        with pytest.raises(InvalidRequest, match="use one of en") as refused:
            service.pipeline.resolve_language("de")
        assert refused.value.param == "language"
        with pytest.raises(InvalidRequest) as refused:
            transcribe(service, wav((LOW_HZ, 1)), request(options={"task": "translate"}))
        assert refused.value.param == "task"


def test_an_unknown_task_is_refused(service: Service) -> None:
    with pytest.raises(InvalidRequest, match="transcribe, translate") as refused:
        transcribe(service, wav((LOW_HZ, 1)), request(options={"task": "sing"}))
    assert refused.value.param == "task"


def test_a_default_profile_that_is_not_there_is_refused_at_once() -> None:
    config, metrics = ServerConfig(default_profile="turbo"), Metrics()
    engine = Engine(FakeModel, config, metrics)
    with pytest.raises(ConfigError, match="dense, balanced, fast"):
        Pipeline(engine, config, metrics, BUILT_IN)


def test_a_profile_that_prunes_deeper_than_the_model_is_refused() -> None:
    with (
        running(
            profiles={"late": Profile("late", layer=9, sparsity=0.5)} | dict(BUILT_IN)
        ) as service,
        pytest.raises(ConfigError, match="the model has 4 encoder layers"),
    ):
        service.pipeline.check_model()
