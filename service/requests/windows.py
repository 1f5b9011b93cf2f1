"""One request's windows in the engine: submit, gather, retry what is not worth keeping."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from service.engine.engine import Engine
from service.errors import Cancelled, DeadlineExceeded, QueueFull
from service.model.protocol import SpeechModel
from service.requests.coverage import PEAK_S, cover, widened
from service.requests.fallback import Attempt, Outcome, best_of, judge
from service.requests.guard import UNFINISHED
from service.requests.rest import rest_of
from service.text.stitch import WindowText
from service.text.timestamps import settle
from service.types import (
    Encoded,
    Fallback,
    Hypothesis,
    Job,
    Reading,
    TranscribeRequest,
    Window,
    WindowResult,
)

MAX_RETRY_WAIT_S = 1.0
MAX_PARTS = 8  # of a window whose text keeps ending early
LOUD_RMS = 0.01  # -40 dB of full scale: more than the noise of a quiet room


@dataclass(frozen=True, slots=True)
class Done:
    """A window with the attempt it stands by, and the reply of every attempt that it cost.

    `texts`: its parts in order, more than one where the text of one ended before its speech.
    """

    texts: tuple[WindowText, ...]
    replies: tuple[WindowResult, ...]
    fallbacks: tuple[Fallback, ...]


class WindowWork:
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
        self._jobs: set[Job] = set()  # whose replies nobody has read
        self._readings: list[Reading] = []

    async def submit(self, windows: Sequence[Window]) -> None:
        """Hands all the windows to the engine, or none. Raises what `Engine.submit` raises, but
        not QueueFull where the request waits for room."""
        asked = self._request
        attempt = Attempt(0, asked.profile, asked.options)
        await self._submit(windows, attempt, resumed=False)

    async def finished(self) -> AsyncGenerator[Done]:
        """Every submitted window's result, as they come. One failure cancels the others."""
        tasks = [asyncio.create_task(self._finish(job)) for job in list(self._jobs)]
        try:
            for next_one in asyncio.as_completed(tasks):
                async with self.within_deadline():
                    done = await next_one
                yield done
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def within_deadline(self) -> AsyncIterator[None]:
        """Raises DeadlineExceeded where the request's time ends first. Not to be held at a yield:
        a timeout cancels whatever its task is doing."""
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()) as limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded("the request's time is over") from None

    def withdraw(self) -> None:
        """Takes back whatever is still waiting or running."""
        # A cancelled reply is one that a cancelled task let go of: the engine may still hold it.
        held = [job for job in self._jobs if job.reply.cancelled() or not job.reply.done()]
        if held:
            self._engine.withdraw(held)

    def readings(self) -> tuple[Reading, ...]:
        """Every attempt at the windows that are finished, in time order, where the request is to
        be explained."""
        return tuple(sorted(self._readings, key=lambda one: (one.window.index, one.window.start_s)))

    @property
    def _temperatures(self) -> tuple[float, ...]:
        """None to try where there is nothing to draw."""
        return () if self._model.info.frame_by_frame else self._request.temperatures

    async def _finish(self, job: Job) -> Done:
        """The window, and on from where its text ends while that is before its speech does."""
        done = await self._stand(job)
        if self._model.info.frame_by_frame:
            return done  # what it heard, it said
        while len(done.texts) < MAX_PARTS and (rest := rest_of(done.texts[-1])) is not None:
            options = replace(job.options, language=done.texts[-1].hypothesis.language)
            attempt = Attempt(0, job.profile, options)
            part = await self._resume(rest, attempt)
            more = await self._stand(part)
            unfinished = _fallback(rest, UNFINISHED, attempt, attempt)
            done = Done(
                done.texts + more.texts,
                done.replies + more.replies,
                (*done.fallbacks, unfinished, *more.fallbacks),
            )
        return done

    async def _stand(self, job: Job) -> Done:
        """Attempts until one stands, none is left, or another would not be done in time."""
        asked = self._request
        attempt = Attempt(0, job.profile, job.options)
        replies: list[WindowResult] = []
        texts: list[WindowText] = []
        outcomes: list[Outcome] = []
        fallbacks: list[Fallback] = []
        while True:
            reply = await self._reply(job)
            encoded, reply = reply.encoded, replace(reply, encoded=None)
            fallbacks += reply.fallbacks
            replies.append(reply)
            texts.append(self._text(job.window, reply.hypothesis))
            outcomes.append(self._outcome(texts[-1]))
            verdict = judge(attempt, outcomes[-1], self._temperatures, asked.thresholds)
            following = verdict.following
            in_time = time.monotonic() + reply.timings.total < self._deadline
            if verdict.reason is None or following is None or not in_time:
                stands = verdict.reason is None
                chosen = len(texts) - 1 if stands else best_of(outcomes, asked.thresholds)
                return Done((texts[chosen],), tuple(replies), tuple(fallbacks))
            fallbacks.append(_fallback(job.window, verdict.reason, attempt, following))
            if following.profile != attempt.profile or self._request.explain:
                encoded = None
            job = await self._resume(job.window, following, encoded)
            attempt = following

    async def _reply(self, job: Job) -> WindowResult:
        """The job is let go with its states, which a long recording has many of."""
        reply = await _reply(job)
        self._jobs.discard(job)
        if reply.kept is not None:
            self._readings.append(
                Reading(job.window, job.profile.name, reply.kept, reply.hypothesis)
            )
        return reply

    def _text(self, window: Window, hypothesis: Hypothesis) -> WindowText:
        pieces = tuple(self._model.split_text(hypothesis.tokens))
        return WindowText(window, hypothesis, pieces, self._request.thresholds)

    def _outcome(self, one: WindowText) -> Outcome:
        text = "".join(piece.text for piece in one.pieces)
        speech = one.window.speech
        loud = not text.strip() and (_is_loud(one.window) if speech is None else bool(speech))
        timed = settle(one.pieces, one.window.duration_s)
        if self._model.info.frame_by_frame:
            timed = widened(timed, PEAK_S)
        coverage = cover(speech, timed)
        return Outcome(one.hypothesis, text, loud, one.is_silent, coverage)

    async def _resume(
        self, window: Window, attempt: Attempt, encoded: Encoded | None = None
    ) -> Job:
        """Another job for a window that was accepted: it waits for room instead of failing, and
        for nobody's turn."""
        (job,) = await self._submit([window], attempt, resumed=True, encoded=encoded)
        return job

    async def _submit(
        self,
        windows: Sequence[Window],
        attempt: Attempt,
        *,
        resumed: bool,
        encoded: Encoded | None = None,
    ) -> list[Job]:
        """The jobs of the windows, accepted by the engine all together."""
        while windows:
            jobs = [
                Job(
                    *(self._id, window, attempt.profile, attempt.options, self._deadline),
                    resumed=resumed,
                    explain=self._request.explain,
                    encoded=encoded,
                )
                for window in windows
            ]
            try:
                # Accepted while ready, before its audio was decoded: a drain may have begun since.
                self._engine.submit(jobs, admitted=True)
            except QueueFull as full:
                if not (resumed or self._request.wait_for_room):
                    raise
                await until_room(full)
            else:
                self._jobs.update(jobs)
                return jobs
        return []


def _is_loud(window: Window) -> bool:
    return bool(len(window.samples)) and float(np.sqrt(np.mean(window.samples**2))) >= LOUD_RMS


def _fallback(window: Window, reason: str, attempt: Attempt, following: Attempt) -> Fallback:
    return Fallback(
        window.index,
        reason,
        attempt.profile.name,
        following.profile.name,
        following.options.temperature,
    )


async def until_room(full: QueueFull) -> None:
    """Waits as long as a full queue says, but looks again soon: it may empty sooner."""
    await asyncio.sleep(min(full.retry_after_s, MAX_RETRY_WAIT_S))


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancels a task and waits until it has ended, however it ends."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # read, or asyncio reports it as forgotten


async def _reply(job: Job) -> WindowResult:
    try:
        return await asyncio.wrap_future(job.reply)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Cancelled("the engine dropped the work before it was done") from None
