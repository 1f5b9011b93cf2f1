"""The sessions there are: connected ones, and those kept for a client that was cut off."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from service.audio.vad import alone
from service.config import ServerConfig
from service.engine.engine import Engine
from service.engine.intake import RETRY_AFTER_S
from service.errors import InvalidRequest, QueueFull
from service.live.conversation import Conversation
from service.live.messages import Event, Message
from service.live.session import LiveRequest, Session
from service.metrics import Metrics
from service.requests.windows import stop
from service.types import SAMPLE_RATE

SESSION_ID_BYTES = 16


class TakenOver(Exception):
    """Another connection has resumed this session."""


class _Entry:
    """A session with the connections that claim it: one holds the lock, later ones wait for it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.lock = asyncio.Lock()
        self.num_claims = 0
        self.run: asyncio.Task[None] | None = None
        self.forget: asyncio.TimerHandle | None = None

    def give_way(self) -> None:
        """For the holder of the lock: raises TakenOver where a newer connection waits."""
        if self.num_claims > 1:
            raise TakenOver


class LiveSessions:
    """Sessions by id, on one event loop; at most `max_live_sessions` connected, as many kept.

    `engine_of` a model by its name; it raises NotReady for one that is not loaded.
    """

    def __init__(
        self, engine_of: Callable[[str], Engine], config: ServerConfig, metrics: Metrics
    ) -> None:
        self._engine_of = engine_of
        self._config = config
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(config.audio_threads, "live", initializer=alone)
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # kept ones in the order they left
        self._num_connected = 0
        self._draining = asyncio.Event()

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    def models(self) -> set[str]:
        """Of sessions that are connected."""
        entries = self._entries.values()
        return {entry.session.asked.model for entry in entries if entry.num_claims}

    def begin_drain(self) -> None:
        """Connected sessions get the finals of what was received, and end."""
        self._draining.set()

    def close(self) -> None:
        """Forgets every session; what a thread is at ends on its own."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for entry in self._entries.values():
            if entry.forget is not None:
                entry.forget.cancel()
        self._entries.clear()

    def find(self, session_id: str) -> Session | None:
        """The session of that id, if it is not forgotten."""
        entry = self._entries.get(session_id)
        return entry.session if entry else None

    @asynccontextmanager
    async def hold(
        self, asked: LiveRequest, session_id: str | None, after: int, keep: bool = True
    ) -> AsyncIterator[tuple[Session, bool]]:
        """The session of that id, or a new one where it is None or forgotten; and whether it is
        resumed. It is kept for a while after, if it is to be kept.

        Another connection that holds it is ended. Raises InvalidRequest for a session that was
        started otherwise or finals that are forgotten, QueueFull where too many are connected,
        TakenOver where a newer connection claims the session first.
        """
        entry = self._entries.get(session_id) if session_id else None
        resumed = entry is not None
        if entry is not None and entry.session.asked != asked:
            raise InvalidRequest(
                "the session was started with other parameters; resume it with the same", "session"
            )
        if (entry is None or not entry.num_claims) and (
            self._num_connected >= self._config.max_live_sessions
        ):
            raise QueueFull(
                f"{self._num_connected} live sessions are connected, which is the limit",
                RETRY_AFTER_S,
            )
        entry = entry or self._new(asked)
        async with self._claimed(entry, keep):
            entry.session.resume(after if resumed else 0)
            yield entry.session, resumed

    async def converse(
        self,
        session: Session,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        """Runs a session that is held, as `Conversation.run` does; TakenOver if it is claimed."""
        entry = self._entries[session.id]
        entry.give_way()
        talk = Conversation(
            session, self._engine_of, self._config, self._metrics, self._pool, receive, send
        )
        run = entry.run = asyncio.create_task(talk.run(self._draining))
        try:
            await asyncio.wait({run})
        finally:
            entry.run = None
            await stop(run)
        if run.cancelled():
            raise TakenOver
        run.result()

    def _new(self, asked: LiveRequest) -> _Entry:
        session_id = secrets.token_urlsafe(SESSION_ID_BYTES)
        max_samples = self._config.live_buffer_seconds * SAMPLE_RATE
        entry = self._entries[session_id] = _Entry(Session(session_id, asked, max_samples))
        return entry

    @asynccontextmanager
    async def _claimed(self, entry: _Entry, keep: bool) -> AsyncIterator[None]:
        entry.num_claims += 1
        self._num_connected += entry.num_claims == 1
        self._metrics.live_sessions.set(self._num_connected)
        if entry.forget is not None:
            entry.forget.cancel()
            entry.forget = None
        if entry.run is not None and not entry.run.cancelling():
            entry.run.cancel()
        try:
            async with entry.lock:
                entry.give_way()
                yield
        finally:
            entry.num_claims -= 1
            if not entry.num_claims:
                self._num_connected -= 1
                self._metrics.live_sessions.set(self._num_connected)
                if keep:
                    self._keep(entry)
                else:
                    self._forget(entry.session.id)

    def _keep(self, entry: _Entry) -> None:
        """Until its time is over, or more were cut off after it than are kept."""
        loop = asyncio.get_running_loop()
        session_id = entry.session.id
        self._entries.move_to_end(session_id)
        entry.forget = loop.call_later(self._config.live_keep_seconds, self._forget, session_id)
        kept = [one.session.id for one in self._entries.values() if one.forget is not None]
        for session_id in kept[: -self._config.max_live_sessions]:
            self._forget(session_id)

    def _forget(self, session_id: str) -> None:
        entry = self._entries.pop(session_id, None)
        if entry is not None and entry.forget is not None:
            entry.forget.cancel()
