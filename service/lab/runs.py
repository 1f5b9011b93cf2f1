"""Recordings through the path that the service takes, many in flight at once.

Or, raw, each whole window through the engine alone: no VAD, no guard, no other attempt.
"""

from __future__ import annotations

import asyncio
import io
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import soundfile

from service.audio.reader import AudioReader
from service.audio.segment import split
from service.config import ServerConfig
from service.engine.engine import LOAD_TIMEOUT_S, Engine
from service.families.fitting import fitted
from service.lab.packing import Item, Pcm, to_float
from service.metrics import Metrics
from service.model.protocol import ModelInfo, SpeechModel
from service.pipeline import Pipeline
from service.profiles import BUILT_IN, Profile
from service.text.stitch import WindowText, stitch
from service.types import (
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    Audio,
    DecodeOptions,
    Fallback,
    Job,
    Segment,
    Thresholds,
    TranscribeRequest,
    Transcript,
    Window,
)

TIMEOUT_S = 7 * 24 * 3600.0  # nobody waits for an answer
REFUSES_NOTHING = Thresholds(compression_ratio=np.inf, logprob=-np.inf, no_speech=1.0)


@dataclass(frozen=True, slots=True)
class How:
    """How recordings are transcribed: as the server does by default, unless `raw`.

    `detect`: the language, instead of taking the item's. `concurrency`: recordings in flight.
    """

    raw: bool = False
    detect: bool = False
    word_times: bool = False
    concurrency: int = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a recording: of `total_frames` the decoder saw `kept_frames`."""

    text: str
    segments: tuple[Segment, ...]
    fallbacks: tuple[Fallback, ...] = ()
    total_frames: int = 0
    kept_frames: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Answers in the order of the items, how many windows those were split into, and the
    wall-clock seconds that all of it took."""

    answers: tuple[Answer, ...]
    num_windows: int
    seconds: float


class Service:
    """An engine with a model and a pipeline in this process. To be entered; not thread-safe."""

    def __init__(self, config: ServerConfig, load: Callable[[], SpeechModel]) -> None:
        self._config = config
        self._metrics = Metrics()
        self._reader = AudioReader(config.audio_threads, config.max_audio_seconds, self._metrics)
        self._series = self._metrics.of(config.model)
        self._engine = Engine(load, config, self._series)
        self._pipeline = Pipeline(self._engine, config, self._series, BUILT_IN, self._reader)
        self._loop = asyncio.Runner()  # a pipeline lives on one event loop

    def __enter__(self) -> Self:
        """Raises CheckpointError where the model cannot be loaded."""
        self._engine.start()
        try:
            self._engine.wait_ready(LOAD_TIMEOUT_S)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reader.close()
        self._engine.stop()
        self._loop.close()

    @property
    def model(self) -> SpeechModel:
        return self._engine.model

    @property
    def info(self) -> ModelInfo:
        return self.model.info

    @property
    def adapters(self) -> tuple[str, ...]:
        """Folders of what profiles may name beside the model's own weights."""
        return self._config.adapters

    def prepare(self, profiles: Sequence[Profile]) -> None:
        """Before they are run. Raises ConfigError for one that the model cannot have."""
        for profile in profiles:
            fitted(self.model, profile, self.adapters)

    def run(
        self,
        items: Sequence[Item],
        profile: Profile,
        how: How,
        done: Callable[[], object] = lambda: None,
        answered: Callable[[int, Answer], object] = lambda number, answer: None,
    ) -> Run:
        """Every item's answer. After each, `answered` is called with the item's number and its
        answer, then `done`. Raises what the pipeline raises."""
        before, began = self._num_windows(profile), time.perf_counter()
        answers = self._loop.run(self._all(items, profile, how, done, answered))
        seconds = time.perf_counter() - began
        return Run(answers, self._num_windows(profile) - before, seconds)

    def _num_windows(self, profile: Profile) -> int:
        labels = {"model": self._series.model, "profile": profile.name}
        return int(self._metrics.registry.get_sample_value("winnow_windows_total", labels) or 0)

    def explain(
        self, source: BinaryIO, profile: Profile, language: str | None = None, *, vad: bool = True
    ) -> tuple[Transcript, Transcript]:
        """A recording under the profile, and dense; `language` is detected where there is none.

        Raises what `Pipeline.explain` raises.
        """
        options = DecodeOptions(self._pipeline.resolve_language(language))
        request = TranscribeRequest(profile, options, vad=vad, timeout_s=TIMEOUT_S)
        return self._loop.run(self._pipeline.explain(source, request))

    async def _all(
        self,
        items: Sequence[Item],
        profile: Profile,
        how: How,
        done: Callable[[], object],
        answered: Callable[[int, Answer], object],
    ) -> tuple[Answer, ...]:
        answers: dict[int, Answer] = {}
        transcribe = self._raw if how.raw else self._served

        async def work(queue: Iterator[tuple[int, Item]]) -> None:
            for number, item in queue:
                language = self._pipeline.resolve_language(None if how.detect else item.language)
                options = DecodeOptions(language, word_times=how.word_times)
                answers[number] = await transcribe(item, profile, options)
                answered(number, answers[number])
                done()

        queue = iter(enumerate(items))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(how.concurrency, len(items))):
                    group.create_task(work(queue))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return tuple(answers[number] for number in range(len(items)))

    async def _served(self, item: Item, profile: Profile, options: DecodeOptions) -> Answer:
        request = TranscribeRequest(profile, options, timeout_s=TIMEOUT_S, wait_for_room=True)
        got = await self._pipeline.transcribe(wav(item.pcm), request)
        return Answer(got.text, got.segments, got.fallbacks, got.total_frames, got.kept_frames)

    async def _raw(self, item: Item, profile: Profile, options: DecodeOptions) -> Answer:
        samples = to_float(item.pcm)
        whole = len(samples) <= WINDOW_SAMPLES
        windows = [Window(0, 0.0, samples)] if whole else split(Audio(samples), vad=False)
        ours, deadline = uuid.uuid4().hex, time.monotonic() + TIMEOUT_S
        jobs = [Job(ours, window, profile, options, deadline) for window in windows]
        self._engine.submit(jobs)
        try:
            replies = await asyncio.gather(*(asyncio.wrap_future(job.reply) for job in jobs))
        finally:
            self._engine.withdraw([job for job in jobs if not job.reply.done()])
        texts = [
            WindowText(
                window,
                reply.hypothesis,
                tuple(self._engine.model.split_text(reply.hypothesis.tokens)),
                REFUSES_NOTHING,
            )
            for window, reply in zip(windows, replies, strict=True)
        ]
        segments = stitch(texts, item.seconds)
        text = "".join(segment.text for segment in segments).strip()
        self._series.windows(profile.name).inc(len(windows))
        said = [reply.hypothesis for reply in replies]
        return Answer(
            text,
            segments,
            total_frames=sum(one.total_frames for one in said),
            kept_frames=sum(one.kept_frames for one in said),
        )


def wav(pcm: Pcm) -> io.BytesIO:
    """A WAV file of 16 kHz mono audio, in memory."""
    file = io.BytesIO()
    soundfile.write(file, pcm, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    file.seek(0)
    return file
