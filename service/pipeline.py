"""One request: decode the audio, split it, submit every window, gather, stitch."""

from __future__ import annotations

import asyncio
import io
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from service.audio.decode import decode
from service.audio.lent import LentFile
from service.audio.segment import split
from service.config import ServerConfig
from service.engine.engine import Engine
from service.engine.intake import RETRY_AFTER_S
from service.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    InvalidRequest,
    NotReady,
    QueueFull,
)
from service.metrics import Metrics
from service.profiles import BUILT_IN, Profile, check_depth, load_profiles
from service.text.guard import retry_reason
from service.text.stitch import WindowText, main_language, stitch, whole_text
from service.types import (
    DecodeOptions,
    Fallback,
    Job,
    Timings,
    Transcript,
    Window,
    WindowResult,
)

if TYPE_CHECKING:
    from service.model.protocol import ModelInfo, SpeechModel

TASKS = ("transcribe", "translate")
NUM_LISTED = 12  # languages that an error message lists before it only counts the rest
MAX_RETRY_WAIT_S = 1.0
# Recordings that may wait to be decoded: some for each thread, and a burst of short ones. Each
# holds its upload meanwhile.
READS_PER_THREAD, READS_IN_A_BURST = 8, 24
RETRY_READ_S = 2.0  # a short recording takes tens of milliseconds, a long one seconds


@dataclass(frozen=True, slots=True)
class TranscribeRequest:
    """What is asked of one recording. `timeout_s` counts from the call, decoding included."""

    profile: Profile
    options: DecodeOptions
    vad: bool = True
    timeout_s: float = 900.0


@dataclass(frozen=True, slots=True)
class _Done:
    """A window with the result it ended with, and every reply it cost."""

    text: WindowText
    replies: tuple[WindowResult, ...]
    fallbacks: tuple[Fallback, ...]


class Pipeline:
    """Answers requests with an engine. Lives on one event loop; the engine is its owner's."""

    def __init__(self, engine: Engine, config: ServerConfig, metrics: Metrics) -> None:
        """Raises ConfigError for a profiles file or a default profile that cannot be used."""
        self.profiles: Mapping[str, Profile] = load_profiles(config.profiles_file)
        if config.default_profile not in self.profiles:
            raise ConfigError(
                f"default_profile {config.default_profile!r}: use one of {', '.join(self.profiles)}"
            )
        self._engine = engine
        self._config = config
        self._metrics = metrics
        self._audio_pool = ThreadPoolExecutor(config.audio_threads, thread_name_prefix="audio")
        self._max_reads = READS_PER_THREAD * config.audio_threads + READS_IN_A_BURST
        self._num_reads = 0

    def resolve_profile(self, name: str | None) -> Profile:
        """The profile of that name, or the default for None. Raises InvalidRequest."""
        wanted = self._config.default_profile if name is None else name
        if wanted not in self.profiles:
            raise InvalidRequest(
                f"unknown profile {wanted!r}; use one of {', '.join(self.profiles)}", "profile"
            )
        return self.profiles[wanted]

    def resolve_language(self, value: str | None) -> str | None:
        """A code or an English name, in any case -> the model's code; None is left to the model.

        An English-only model hears English. Raises InvalidRequest for a language the model does
        not have, and NotReady while it loads.
        """
        info = self._engine.model.info
        if value is None:
            return None if info.multilingual else next(iter(info.languages))
        wanted = value.strip().lower()
        for code, name in info.languages.items():
            if wanted in (code.lower(), name.lower()):
                return code
        raise InvalidRequest(f"unknown language {value!r}; use {_listed(info)}", "language")

    def check_model(self) -> None:
        """Raises ConfigError if a profile does not fit the model; NotReady while it loads."""
        check_depth(self.profiles, self._engine.model.info.num_encoder_layers)

    async def transcribe(self, source: BinaryIO, request: TranscribeRequest) -> Transcript:
        """The transcript of one recording. `source` is not touched after this returns or raises.

        Raises InvalidAudio, InvalidRequest, TooLarge, QueueFull, NotReady, DeadlineExceeded or
        EngineError; the request's other windows are withdrawn. Cancelling the call withdraws
        them too.
        """
        began = time.monotonic()
        model = self._engine.model
        if self._engine.state != "ready":
            # Said before the audio is decoded; `submit` would say it only after.
            raise NotReady(f"not ready: {self._engine.reason}", RETRY_AFTER_S)
        _check_task(request.options.task, model.info)
        work = _Work(self._engine, model, request, deadline=began + request.timeout_s)
        try:
            async with asyncio.timeout(request.timeout_s) as limit:
                duration_s, windows, decode_s = await self._read(source, request.vad)
                done = await work.run(windows)
        except (TimeoutError, DeadlineExceeded) as error:
            if isinstance(error, TimeoutError) and not limit.expired():
                raise
            self._metrics.cancelled.labels(reason="deadline").inc()
            raise DeadlineExceeded(
                f"the request was not done within {request.timeout_s:g} seconds and was cancelled"
            ) from None
        finally:
            work.withdraw()
        transcript = _assemble(duration_s, done, request, model.info, began, decode_s)
        self._observe(transcript)
        return transcript

    def close(self) -> None:
        """Takes no more audio; what is being decoded ends on its own."""
        self._audio_pool.shutdown(wait=False, cancel_futures=True)

    async def _read(self, source: BinaryIO, vad: bool) -> tuple[float, list[Window], float]:
        """The recording's seconds, its windows, and the seconds that took. Raises QueueFull."""
        if self._num_reads >= self._max_reads:
            raise QueueFull(
                f"the queue is full: {self._num_reads} recordings wait to be decoded", RETRY_READ_S
            )
        self._num_reads += 1
        lent = LentFile(source)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._audio_pool, self._decode_and_split, lent, vad
            )
        finally:
            lent.take_back()
            self._num_reads -= 1

    def _decode_and_split(self, lent: LentFile, vad: bool) -> tuple[float, list[Window], float]:
        began = time.monotonic()
        with io.BufferedReader(lent, io.DEFAULT_BUFFER_SIZE * 8) as source:
            audio = decode(source, self._config.max_audio_seconds)
        if lent.taken_back:
            raise Cancelled("the request ended while its audio was decoded")
        windows = split(audio, vad)
        return audio.duration_s, windows, time.monotonic() - began

    def _observe(self, t: Transcript) -> None:
        for stage in ("decode_audio", "queue", "mel", "encode", "decode", "total"):
            seconds = getattr(t.timings, stage)
            self._metrics.stage_seconds.labels(stage=stage, profile=t.profile).observe(seconds)
        self._metrics.real_time_factor.labels(profile=t.profile).observe(t.real_time_factor)
        self._metrics.audio_seconds.labels(profile=t.profile).inc(t.duration)
        for fallback in t.fallbacks:
            self._metrics.fallbacks.labels(profile=t.profile, reason=fallback.reason).inc()


class _Work:
    """One request's windows in the engine."""

    def __init__(
        self, engine: Engine, model: SpeechModel, request: TranscribeRequest, deadline: float
    ) -> None:
        self._engine = engine
        self._model = model
        self._request = request
        self._deadline = deadline
        # What turns are taken by. Not the request's id: a gateway may send one for all its users.
        self._id = uuid.uuid4().hex
        self._jobs: list[Job] = []

    async def run(self, windows: Sequence[Window]) -> list[_Done]:
        """Every window's result, in the windows' order. One failure cancels the others."""
        jobs = [self._job(window, self._request.profile) for window in windows]
        # It was accepted while ready, before its audio was decoded: a drain may have begun since.
        self._submit(jobs)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._finish(job)) for job in jobs]
        except BaseExceptionGroup as failed:
            raise _first_of(failed) from None
        return [task.result() for task in tasks]

    def withdraw(self) -> None:
        """Takes back whatever is still waiting or running."""
        # A cancelled reply is one that a cancelled task let go of: the engine may still hold it.
        held = [job for job in self._jobs if job.reply.cancelled() or not job.reply.done()]
        if held:
            self._engine.withdraw(held)

    async def _finish(self, job: Job) -> _Done:
        first = await _reply(job)
        done = self._done(job.window, (first,), first.fallbacks)
        if job.profile.is_dense:
            return done
        reason = retry_reason(first.hypothesis, "".join(piece.text for piece in done.text.pieces))
        if reason is None:
            return done
        dense = BUILT_IN["dense"]
        second = await _reply(await self._resubmit(job.window, dense))
        retried = Fallback(job.window.index, reason, job.profile.name, dense.name)
        return self._done(
            job.window, (first, second), (*first.fallbacks, retried, *second.fallbacks)
        )

    async def _resubmit(self, window: Window, profile: Profile) -> Job:
        """Puts a window of an admitted request in again: it waits for room instead of failing."""
        while True:
            job = self._job(window, profile)
            try:
                self._submit([job])
            except QueueFull as full:
                await asyncio.sleep(min(full.retry_after_s, MAX_RETRY_WAIT_S))
            else:
                return job

    def _job(self, window: Window, profile: Profile) -> Job:
        return Job(self._id, window, profile, self._request.options, self._deadline)

    def _submit(self, jobs: list[Job]) -> None:
        if jobs:
            self._engine.submit(jobs, admitted=True)
            self._jobs += jobs

    def _done(
        self, window: Window, replies: tuple[WindowResult, ...], fallbacks: tuple[Fallback, ...]
    ) -> _Done:
        hypothesis = replies[-1].hypothesis
        pieces = tuple(self._model.split_text(hypothesis.tokens))
        return _Done(WindowText(window, hypothesis, pieces), replies, fallbacks)


async def _reply(job: Job) -> WindowResult:
    try:
        return await asyncio.wrap_future(job.reply)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Cancelled("the engine dropped the work before it was done") from None


def _assemble(
    duration_s: float,
    done: Sequence[_Done],
    request: TranscribeRequest,
    info: ModelInfo,
    began: float,
    decode_s: float,
) -> Transcript:
    texts = [one.text for one in done]
    segments = stitch(texts, duration_s)
    return Transcript(
        text=whole_text(segments),
        language=main_language(texts, request.options.language or next(iter(info.languages))),
        duration=duration_s,
        model=info.name,
        profile=request.profile.name,
        segments=segments,
        total_frames=sum(one.text.hypothesis.total_frames for one in done),
        kept_frames=sum(one.text.hypothesis.kept_frames for one in done),
        timings=_timings(done, decode_s, time.monotonic() - began),
        fallbacks=tuple(fallback for one in done for fallback in one.fallbacks),
    )


def _timings(done: Sequence[_Done], decode_s: float, total_s: float) -> Timings:
    costs = [reply.timings for one in done for reply in one.replies]
    return Timings(
        decode_audio=decode_s,
        queue=max((sum(r.timings.queue for r in one.replies) for one in done), default=0.0),
        mel=sum(cost.mel for cost in costs),
        encode=sum(cost.encode for cost in costs),
        decode=sum(cost.decode for cost in costs),
        total=total_s,
    )


def _first_of(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failed.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


def _check_task(task: str, info: ModelInfo) -> None:
    if task not in TASKS:
        raise InvalidRequest(f"unknown task {task!r}; use one of {', '.join(TASKS)}", "task")
    if task == "translate" and not info.multilingual:
        raise InvalidRequest(
            f"the model {info.name} hears one language only and cannot translate; use transcribe",
            "task",
        )


def _listed(info: ModelInfo) -> str:
    codes = list(info.languages)
    more = len(codes) - NUM_LISTED
    listed = f"one of {', '.join(codes[:NUM_LISTED])}"
    return f"{listed} and {more} more, by code or English name" if more > 0 else listed
