"""One connection to a session: audio is heard as it comes, utterances are transcribed in turn.

Two tasks share the session. The reader takes messages while there is room, which is what holds a
client back: a message that is not read stays in the socket. The worker makes finals, and partials
when nothing else waits. An utterance whose speaker has paused is begun on before the pause is long
enough to end it; who speaks on makes that void. Ending either task withdraws what the engine holds;
the session keeps the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass

from service.audio import vad
from service.audio.vad import CHUNK_SAMPLES
from service.config import ServerConfig
from service.engine.engine import Engine
from service.engine.intake import RETRY_AFTER_S
from service.errors import (
    DeadlineExceeded,
    EngineError,
    InvalidAudio,
    NotReady,
    QueueFull,
    WinnowError,
)
from service.live.messages import (
    Ack,
    Change,
    Clear,
    Cleared,
    Commit,
    Committed,
    Event,
    Flush,
    Message,
    Refused,
    Stop,
)
from service.live.session import Final, Partial, Session, Spoken, Turn
from service.metrics import Metrics
from service.requests.windows import Done, WindowWork, stop, until_room
from service.text.progress import whole_text
from service.text.stitch import stitch
from service.types import TranscribeRequest, Window

LISTEN_SAMPLES = 3 * CHUNK_SAMPLES  # what is worth a call of the VAD
MAX_BAD_MESSAGES = 16  # of one connection, before it is closed
# A partial is made only where its window would be among the first pieces of the next batch, and
# windows are so quick that a final which comes meanwhile does not wait long: an encode that has
# begun is not broken off.
BUSY_SHARE = 4
SLOW_WINDOW_S = 0.5


@dataclass(frozen=True, slots=True)
class Early:
    """The work on an utterance that has probably ended."""

    window: Window
    request: TranscribeRequest
    done: asyncio.Task[Done]

    def is_on(self, window: Window, request: TranscribeRequest) -> bool:
        """Whether `window` is the same stretch of the stream, and the same is asked of it."""
        mine = (self.window.start_s, self.window.duration_s, self.request)
        return mine == (window.start_s, window.duration_s, request)


class Conversation:
    """Runs a session for one connection: `receive` its messages, `send` it events."""

    def __init__(
        self,
        session: Session,
        engine_of: Callable[[str], Engine],
        config: ServerConfig,
        metrics: Metrics,
        pool: Executor,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._session = session
        self._engine_of = engine_of
        self._max_outstanding = max(1, config.max_batch_windows // BUSY_SHARE)
        self._metrics = metrics
        self._pool = pool
        self._receive = receive
        self._send = send
        self._ending = False
        self._num_bad = 0
        self._last_window_s = 0.0
        self._early: Early | None = None
        # Both tasks send; what the reader has to tell goes before the finals that follow from it.
        self._telling = asyncio.Lock()
        self._untold: deque[Event] = deque()

    @property
    def _engine(self) -> Engine:
        return self._engine_of(self._session.asked.model)

    async def run(self, draining: asyncio.Event) -> None:
        """Returns when every final of what was received is sent, after Stop or when `draining`.

        Raises what `receive` and `send` raise, NotReady where the engine cannot go on, and
        InvalidAudio or InvalidRequest for messages that cannot be taken. Cancelling it withdraws
        its work.
        """
        reader = asyncio.create_task(self._read())
        worker = asyncio.create_task(self._work())
        drain = asyncio.create_task(draining.wait())
        try:
            await asyncio.wait({reader, worker, drain}, return_when=asyncio.FIRST_COMPLETED)
            if worker.done():
                worker.result()
            if not reader.done():
                await stop(reader)
                await self._finish()
            elif not reader.cancelled():
                reader.result()
            self._ending = True
            self._session.changed.set()
            await worker
        finally:
            for task in (reader, worker, drain):
                await stop(task)
            await self._drop_early()

    async def _read(self) -> None:
        """Messages until Stop."""
        while True:
            match await self._receive():
                case Ack(seq):
                    self._session.acknowledge(seq)
                case Flush():
                    await self._finish()
                case Stop():
                    await self._finish()
                    return
                case Commit():
                    await self._finish()
                    await self._tell(Committed(self._session.received_s))
                case Clear():
                    self._session.clear()
                    await self._foresee()
                    await self._tell(Cleared(self._session.received_s))
                case Change(asked):
                    self._session.change(asked)
                case bytes(audio):
                    await self._take(audio)

    async def _take(self, audio: bytes) -> None:
        session = self._session
        session.stream.check(audio)
        for part in session.stream.split(audio):
            while not session.has_room:
                session.roomy.clear()
                await session.roomy.wait()
            try:
                session.take(part)
            except InvalidAudio as error:
                self._num_bad += 1
                if self._num_bad > MAX_BAD_MESSAGES:
                    raise
                await self._tell(Refused(error))
            if len(session.unheard()) >= LISTEN_SAMPLES:
                await self._listen()

    async def _listen(self) -> None:
        """The VAD hears what it has not heard. A call that is cancelled leaves no trace."""
        unheard = self._session.unheard()
        if len(unheard):
            loop = asyncio.get_running_loop()
            state = self._session.vad_state()
            heard = await loop.run_in_executor(self._pool, vad.advance, state, unheard)
            self._queue(self._session.hear(*heard))
            await self._foresee()
            await self._tell()

    async def _foresee(self) -> None:
        """Begins on the utterance that has probably ended, and drops one that has gone on."""
        session, early = self._session, self._early
        window = session.likely_window()
        request = session.asked.request
        wanted = [(one.window, one.request) for one in session.spoken]
        wanted += [] if window is None else [(window, request)]
        if early is not None and not any(early.is_on(*one) for one in wanted):
            await self._drop_early()
        # Pauses inside speech are often as long: with anything else to do, the end is waited for.
        if self._early is None and window is not None and self._engine.num_outstanding == 0:
            work = asyncio.create_task(self._transcribe(window, request))
            self._early = Early(window, request, work)

    async def _drop_early(self) -> None:
        early, self._early = self._early, None
        if early is not None:
            await stop(early.done)

    async def _finish(self) -> None:
        self._session.fill_chunk()
        await self._listen()
        self._queue(self._session.finish())
        await self._tell()

    def _queue(self, turns: Sequence[Turn]) -> None:
        """At once, before the worker can have a final of them."""
        if self._session.asked.turns:
            self._untold += turns

    async def _tell(self, *events: Event) -> None:
        """Sends these, in order, after what another task is about to send."""
        self._untold += events
        async with self._telling:
            while self._untold:
                await self._send(self._untold.popleft())

    async def _work(self) -> None:
        """Finals in order; partials where nothing waits; until the end, if there is one."""
        session = self._session
        for final in session.unacknowledged():
            await self._tell(final)
        while session.spoken or not self._ending:
            session.changed.clear()
            if session.spoken:
                await self._final(session.spoken[0])
            elif (window := self._due_partial()) is not None:
                await self._partial(window)
            else:
                await session.changed.wait()

    async def _final(self, spoken: Spoken) -> None:
        session, window = self._session, spoken.window
        end_s = window.start_s + window.duration_s
        try:
            done = await self._begun(spoken) or await self._patiently(spoken)
        except (EngineError, DeadlineExceeded) as error:
            if self._engine.state not in ("ready", "draining"):
                raise NotReady(f"not ready: {self._engine.reason}", RETRY_AFTER_S) from None
            final = Final(window.index, window.start_s, end_s, "", "", error=error)
        else:
            segments = stitch(done.texts, end_s)
            language = done.texts[0].hypothesis.language
            text = whole_text(segments)
            final = Final(window.index, window.start_s, end_s, text, language, segments)
        session.complete(final)
        await self._tell(final)
        profile = spoken.request.profile.name
        waited_s = time.monotonic() - spoken.heard_at
        metrics = self._metrics.of(session.asked.model)
        metrics.live_final_seconds(profile).observe(waited_s)
        metrics.audio_seconds(profile).inc(window.duration_s)

    async def _begun(self, spoken: Spoken) -> Done | None:
        """What was begun on this window before its utterance ended, if it was."""
        early = self._early
        if early is None or not early.is_on(spoken.window, spoken.request):
            return None
        self._early = None
        try:
            return await early.done
        except QueueFull:
            return None

    async def _patiently(self, spoken: Spoken) -> Done:
        """Waits for room in the engine's queue; meanwhile the session's own buffer fills."""
        while True:
            try:
                return await self._transcribe(spoken.window, spoken.request)
            except QueueFull as full:
                await until_room(full)

    def _due_partial(self) -> Window | None:
        if not self._session.asked.partials or self._ending or self._early is not None:
            return None
        if self._engine.num_outstanding >= self._max_outstanding:
            return None
        if self._last_window_s > SLOW_WINDOW_S:
            return None
        return self._session.partial_window()

    async def _partial(self, window: Window) -> None:
        """Sends a partial, unless it fails or its utterance ends first."""
        request = self._session.asked.request
        work = asyncio.create_task(self._transcribe(window, request))
        ended = asyncio.create_task(self._until_spoken())
        try:
            await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return
            done = work.result()
        except WinnowError:
            return
        finally:
            await stop(ended)
            await stop(work)
        end_s = window.start_s + window.duration_s
        text = whole_text(stitch(done.texts, end_s))
        await self._tell(Partial(window.index, window.start_s, end_s, text))

    async def _until_spoken(self) -> None:
        while not (self._session.spoken or self._ending):
            self._session.changed.clear()
            await self._session.changed.wait()

    async def _transcribe(self, window: Window, request: TranscribeRequest) -> Done:
        began = time.monotonic()
        work = WindowWork(self._engine, self._engine.model, request, began + request.timeout_s)
        try:
            await work.submit([window])
            async with aclosing(work.finished()) as results:
                return await anext(results)
        finally:
            work.withdraw()
            self._last_window_s = time.monotonic() - began
