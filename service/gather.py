"""One request's windows in the engine: submit, gather, retry what is not worth keeping."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.engine.engine import Engine
from service.errors import Cancelled, DeadlineExceeded, QueueFull
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

    def submit(self, windows: Sequence[Window]) -> None:
        """Hands all the windows to the engine, or none. Raises what `Engine.submit` raises."""
        # It was accepted while ready, before its audio was decoded: a drain may have begun since.
        self._submit([self._job(window, self._request.profile) for window in windows])

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
