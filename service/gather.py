"""One request's windows in the engine: submit, gather, retry what is not worth keeping."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from service.engine.engine import Engine
from service.errors import Cancelled, QueueFull
from service.model.protocol import SpeechModel
from service.profiles import BUILT_IN, Profile
from service.text.guard import retry_reason
from service.text.stitch import WindowText
from service.types import Fallback, Job, TranscribeRequest, Window, WindowResult

MAX_RETRY_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Done:
    """A window with the result it ended with, and every reply it cost."""

    text: WindowText
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
        self._jobs: list[Job] = []

    async def run(self, windows: Sequence[Window]) -> list[Done]:
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

    async def _finish(self, job: Job) -> Done:
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
    ) -> Done:
        hypothesis = replies[-1].hypothesis
        pieces = tuple(self._model.split_text(hypothesis.tokens))
        return Done(WindowText(window, hypothesis, pieces), replies, fallbacks)


async def _reply(job: Job) -> WindowResult:
    try:
        return await asyncio.wrap_future(job.reply)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Cancelled("the engine dropped the work before it was done") from None


def _first_of(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failed.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
