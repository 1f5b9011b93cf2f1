"""One request: decode the audio, split it, submit every window, gather, stitch."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from service.audio.reader import AudioReader, Recording
from service.config import ServerConfig
from service.engine.engine import Engine
from service.engine.intake import RETRY_AFTER_S
from service.errors import ConfigError, DeadlineExceeded, InvalidRequest, NotReady, TooLarge
from service.metrics import ModelMetrics
from service.profiles import BUILT_IN, Profile
from service.requests.admission import Admission
from service.requests.windows import Done, WindowWork
from service.text.progress import InOrder, RunningText
from service.text.stitch import main_language, spoken_languages
from service.text.tags import ANY, language_code
from service.types import (
    Progress,
    SpokenLanguage,
    Timings,
    TranscribeRequest,
    Transcript,
)

if TYPE_CHECKING:
    from service.model.protocol import ModelInfo

TASKS = ("transcribe", "translate")
EXPLAINED_S = 3600  # an hour is a page of 20 MB
NUM_LISTED = 12  # languages that an error message lists before it only counts the rest


class Pipeline:
    """Answers requests with an engine. Lives on one event loop; the engine and the reader are its
    owner's."""

    def __init__(
        self,
        engine: Engine,
        config: ServerConfig,
        metrics: ModelMetrics,
        profiles: Mapping[str, Profile],
        reader: AudioReader,
    ) -> None:
        """Raises ConfigError for a default profile that is none of the `profiles`."""
        self._engine = engine
        self._config = config
        self.use(profiles)
        self._metrics = metrics
        self._reader = reader
        self._admission = Admission(config.max_wait_seconds)
        self.num_open = 0  # requests that are being answered

    def use(self, profiles: Mapping[str, Profile]) -> None:
        """These, from now on. Raises ConfigError where the default profile is none of them."""
        default = self._config.default_profile
        if default not in profiles:
            raise ConfigError(f"default_profile {default!r}: use one of {', '.join(profiles)}")
        self.profiles = profiles

    def resolve_profile(self, name: str | None) -> Profile:
        """The profile of that name, or the default for None. Raises InvalidRequest."""
        wanted = self._config.default_profile if name is None else name
        if wanted not in self.profiles:
            raise InvalidRequest(
                f"unknown profile {wanted!r}; use one of {', '.join(self.profiles)}", "profile"
            )
        return self.profiles[wanted]

    def resolve_language(self, value: str | None, param: str = "language") -> str | None:
        """What a client calls a language -> the model's code; None, "" and `auto` are left to it.

        By code (`en`, `eng`), tag (`en-US`, `en_GB`) or English name, in any case. An English-only
        model hears English. Raises InvalidRequest for a language the model does not have, and
        NotReady while it loads.
        """
        info = self._engine.model.info
        if value is None or not value.strip() or value.strip().lower() in ANY:
            return None if info.multilingual else next(iter(info.languages))
        if (code := language_code(value, info.languages)) is None:
            raise InvalidRequest(f"unknown language {value!r}; use {_listed(info)}", param)
        return code

    def resolve_languages(self, values: Sequence[str]) -> tuple[str, ...]:
        """The codes of the only languages to consider, each once; () for all of the model's.

        Raises what `resolve_language` does.
        """
        codes = [self.resolve_language(value, "languages") for value in values if value.strip()]
        known = [code for code in codes if code is not None]
        return tuple(dict.fromkeys(known)) if len(known) == len(codes) else ()

    def resolve_spoken(
        self, language: str | None, languages: Sequence[str] = ()
    ) -> tuple[str | None, tuple[str, ...]]:
        """`language` and `languages` of the options for what a client calls them.

        The one language goes before the several, and several that are one are that one. Raises
        what `resolve_language` does.
        """
        one, several = self.resolve_language(language), self.resolve_languages(languages)
        if one is None and len(several) == 1:
            one = several[0]
        return one, () if one is not None else several

    def admit(self, caller: str) -> None:
        """Says, before its recording is read, that a request is taken; else raises QueueFull.

        `caller` is the same when a request is sent again (`admission`).
        """
        num_ahead, rate = self._engine.waiting()
        self._admission.admit(caller, num_ahead + self._reader.num_reads, rate, time.monotonic())

    async def transcribe(self, source: BinaryIO, request: TranscribeRequest) -> Transcript:
        """The transcript of one recording. `source` is not touched after this returns or raises.

        Raises InvalidAudio, InvalidRequest, TooLarge, QueueFull, NotReady, DeadlineExceeded or
        EngineError; the request's other windows are withdrawn. Cancelling the call withdraws
        them too.
        """
        async with aclosing(self.stream(source, request)) as parts:
            async for part in parts:
                transcript = part.transcript
        assert transcript is not None
        return transcript

    async def stream(
        self, source: BinaryIO, request: TranscribeRequest
    ) -> AsyncGenerator[Progress]:
        """The transcript as it becomes final, in order.

        The first part is empty: it says that the audio was read, `source` is let go, and the
        windows were accepted. Raises what `transcribe` does. Closing it withdraws the work.
        """
        began, info = time.monotonic(), self._engine.model.info
        async with self._submitted(source, request) as (recording, work):
            yield Progress()
            in_order, running = InOrder(recording.windows, recording.duration_s), RunningText()
            done: list[Done] = []
            parts: list[Progress] = []
            async with aclosing(work.finished()) as results:
                async for one in results:
                    done.append(one)
                    if segments := in_order.add(one.texts):
                        parts.append(Progress(running.add(segments), tuple(segments)))
                        yield parts[-1]
        transcript = _assemble(recording, done, parts, request, info, began)
        transcript = replace(transcript, readings=work.readings())
        self._observe(transcript, len(done))
        yield Progress(transcript=transcript)

    async def explain(
        self, source: BinaryIO, request: TranscribeRequest
    ) -> tuple[Transcript, Transcript]:
        """The transcript with word times and its `readings`, and dense's of the same recording.

        Raises what `transcribe` does, and TooLarge for more than an hour.
        """
        began = time.monotonic()
        options = replace(request.options, word_times=True)
        asked = replace(request, options=options, explain=True)
        ours = await self.transcribe(source, asked)
        if request.profile.is_dense:
            return ours, ours
        source.seek(0)
        left_s = max(0.0, request.timeout_s - (time.monotonic() - began))
        dense = replace(asked, profile=BUILT_IN["dense"], explain=False, timeout_s=left_s)
        return ours, await self.transcribe(source, dense)

    async def detect_language(self, source: BinaryIO, request: TranscribeRequest) -> SpokenLanguage:
        """The language of the first window that has speech.

        Raises what `transcribe` does, and InvalidRequest for a model of one language.
        """
        info = self._engine.model.info
        if not info.knows_several:
            raise InvalidRequest(
                f"the model {info.name} hears one language only: nothing to detect"
            )
        asked = replace(request, options=replace(request.options, language_only=True))
        async with (
            self._submitted(source, asked) as (recording, work),
            aclosing(work.finished()) as results,
        ):
            probabilities = [one.texts[0].hypothesis.language_probs async for one in results]
        return SpokenLanguage(
            probabilities=probabilities[0] if probabilities else (),
            duration=recording.duration_s,
            model=info.name,
            profile=request.profile.name,
        )

    @asynccontextmanager
    async def _submitted(
        self, source: BinaryIO, request: TranscribeRequest
    ) -> AsyncIterator[tuple[Recording, WindowWork]]:
        """A recording that was read, its windows in the engine; withdrawn at the end."""
        model = self._engine.model
        if self._engine.state != "ready":
            # Said before the audio is decoded; `submit` would say it only after.
            raise NotReady(f"not ready: {self._engine.reason}", RETRY_AFTER_S)
        _check_task(request.options.task, model.info)
        work = WindowWork(
            self._engine, model, request, deadline=time.monotonic() + request.timeout_s
        )
        self.num_open += 1
        try:
            async with (
                work.within_deadline(),
                self._reader.waiting_room if request.wait_for_room else nullcontext(),
            ):
                recording = await self._reader.read(source, request)
                self._admission.learn_size(len(recording.windows))
                if request.explain and recording.duration_s > EXPLAINED_S:
                    lasts = f"the recording lasts {recording.duration_s:.0f} s"
                    raise TooLarge(f"{lasts}: at most {EXPLAINED_S} s are explained at once")
                await work.submit(recording.windows)
            yield recording, work
        except DeadlineExceeded:
            self._metrics.every.cancelled.labels(reason="deadline").inc()
            raise DeadlineExceeded(
                f"the request was not done within {request.timeout_s:g} seconds and was cancelled"
            ) from None
        finally:
            self.num_open -= 1
            work.withdraw()

    def _observe(self, t: Transcript, num_windows: int) -> None:
        self._metrics.windows(t.profile).inc(num_windows)
        guarded = {fallback.window for fallback in t.fallbacks}
        self._metrics.guarded_windows(t.profile).inc(len(guarded))
        for stage in ("decode_audio", "queue", "mel", "encode", "decode", "total"):
            seconds = getattr(t.timings, stage)
            self._metrics.stage_seconds(stage, t.profile).observe(seconds)
        self._metrics.real_time_factor(t.profile).observe(t.real_time_factor)
        self._metrics.audio_seconds(t.profile).inc(t.duration)
        for fallback in t.fallbacks:
            self._metrics.fallbacks(t.profile, fallback.reason).inc()


def _assemble(
    recording: Recording,
    done: list[Done],
    parts: Sequence[Progress],
    request: TranscribeRequest,
    info: ModelInfo,
    began: float,
) -> Transcript:
    done.sort(key=lambda one: one.texts[0].window.index)
    texts = [text for one in done for text in one.texts]
    return Transcript(
        text="".join(part.text for part in parts),
        language=main_language(texts, request.options.language or next(iter(info.languages))),
        duration=recording.duration_s,
        model=info.name,
        profile=request.profile.name,
        segments=tuple(segment for part in parts for segment in part.segments),
        total_frames=sum(text.hypothesis.total_frames for text in texts),
        kept_frames=sum(text.hypothesis.kept_frames for text in texts),
        timings=_timings(done, recording.decode_s, time.monotonic() - began),
        fallbacks=tuple(fallback for one in done for fallback in one.fallbacks),
        warnings=recording.losses,
        languages=spoken_languages(texts),
    )


def _timings(done: Sequence[Done], decode_s: float, total_s: float) -> Timings:
    costs = [reply.timings for one in done for reply in one.replies]
    return Timings(
        decode_audio=decode_s,
        queue=max((sum(r.timings.queue for r in one.replies) for one in done), default=0.0),
        mel=sum(cost.mel for cost in costs),
        encode=sum(cost.encode for cost in costs),
        decode=sum(cost.decode for cost in costs),
        total=total_s,
    )


def _check_task(task: str, info: ModelInfo) -> None:
    if task not in TASKS:
        raise InvalidRequest(f"unknown task {task!r}; use one of {', '.join(TASKS)}", "task")
    if task == "translate" and not info.knows_several:
        raise InvalidRequest(
            f"the model {info.name} hears one language only and cannot translate; use transcribe",
            "task",
        )


def _listed(info: ModelInfo) -> str:
    codes = list(info.languages)
    more = len(codes) - NUM_LISTED
    listed = f"one of {', '.join(codes[:NUM_LISTED])}"
    return f"{listed} and {more} more, by code or English name" if more > 0 else listed
