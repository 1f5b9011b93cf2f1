"""`/v1/realtime`: OpenAI's Realtime, transcription sessions. `docs/realtime.md` describes it."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from fastapi import APIRouter, WebSocket

from service.api.errors import Answer, answer_to
from service.api.fields import BadEvent
from service.api.realtime_messages import ClientEvent, event_id, parse, read, refusal, told
from service.api.realtime_session import (
    Settings,
    first_settings,
    read_names,
    read_update,
    show,
    to_request,
)
from service.api.talks import RESTART, Closing, Talk
from service.errors import InvalidRequest
from service.live.items import ItemEvent, Items
from service.live.messages import Change, Clear, Commit, Event, Message
from service.live.session import Final, LiveRequest
from service.text.formats import warnings_json

MAX_BAD_EVENTS = 64  # of one connection, before it is closed
MAX_WAITING_ITEMS = 256  # complete, without text: beyond that nothing is read
LEAST_COMMIT_S = 0.1
ID_BYTES = 10

router = APIRouter()


@router.websocket("/v1/realtime")
async def realtime(socket: WebSocket) -> None:
    """A transcription session's events until one side ends it."""
    await RealtimeTalk(socket).attend()


class RealtimeTalk(Talk):
    """Events in, events out; a session that ends with its connection."""

    path = "/v1/realtime"
    protocols = ("realtime",)
    may_leave = True

    def __init__(self, socket: WebSocket) -> None:
        super().__init__(socket)
        self._items = Items(self.services.config.max_audio_seconds)
        self._fewer = asyncio.Event()  # items wait for their text than before
        self._settings = Settings(model="")
        self._session_id = ""
        self._asked_by: str | None = None  # the id of the event that is being answered
        self._odd = b""  # half a sample, whose other half is in the next message
        self._num_bad = 0

    async def converse(self) -> Closing:
        services = self.services
        services.check_ready()
        query = self._socket.query_params
        if query.get("intent", "transcription") != "transcription":
            raise BadEvent(
                "Only transcription sessions are served here: connect with ?intent=transcription.",
                "intent",
            )
        self._settings = first_settings(query.get("model") or services.models.first.name)
        self._items.by_pause = self._settings.vad is not None
        asked = await self._understood(self._settings)
        self.profile = asked.request.profile.name
        async with services.live.hold(asked, None, 0, keep=False) as (session, _):
            self._session_id = f"sess_{session.id}"
            await self._tell({"type": "session.created", "session": self._shown()})
            self._session = session
            await services.live.converse(session, self._receive, self._send)
            await self._tell_items(self._items.close(session.received_s))
        return RESTART, "the service is shutting down"

    async def complain(self, answer: Answer, failure: Exception, message: str) -> None:
        param = failure.param if isinstance(failure, InvalidRequest) else None
        code = failure.code if isinstance(failure, BadEvent) else answer.code
        await self._tell(refusal(answer, message, param, code, self._asked_by))

    async def _receive(self) -> Message:
        """The next event that concerns the session; errors are told, and it goes on."""
        while True:
            self._asked_by = None
            text = await self.next_message()
            try:
                given = parse(text)
                self._asked_by = event_id(given)
                message = await self._understand(read(given))
            except InvalidRequest as error:
                self._num_bad += 1
                if self._num_bad > MAX_BAD_EVENTS:
                    raise
                await self.complain(answer_to(error), error, str(error))
            else:
                return message

    async def _understand(self, event: ClientEvent) -> Message:
        match event.type:
            case "session.update":
                return await self._update(event.given.get("session"))
            case "input_audio_buffer.append":
                return self._whole_samples(event.audio)
            case "input_audio_buffer.clear":
                self._odd = b""
                return Clear()
        self._check_commit()
        self._odd = b""
        while self._items.num_waiting >= MAX_WAITING_ITEMS:
            self._fewer.clear()
            await self._fewer.wait()
        return Commit()

    async def _update(self, session: Any) -> Message:
        settings, notices = read_update(session, self._settings)
        asked = await self._understood(settings)
        if asked.model != self._session.asked.model and self._session.received_s:
            raise BadEvent("The model cannot be changed once audio was sent.", "session.model")
        if settings.format != self._settings.format:
            self._odd = b""
        self._settings = settings
        self.profile = asked.request.profile.name
        self._items.by_pause = settings.vad is not None
        warnings = {"warnings": warnings_json(notices)} if notices else {}
        await self._tell({"type": "session.updated", "session": self._shown(), **warnings})
        return Change(asked)

    async def _understood(self, settings: Settings) -> LiveRequest:
        """Waits for the model, if it has to be loaded. Raises what `Models.get` raises."""
        timeout_s = float(self.services.config.deadline_seconds)
        models = self.services.models
        name, profile = read_names(models, settings)
        served = await models.get(name, timeout_s)
        return to_request(settings, served, served.pipeline.resolve_profile(profile), timeout_s)

    def _whole_samples(self, audio: bytes) -> bytes:
        if self._settings.format != "audio/pcm":
            return audio
        audio = self._odd + audio
        even = len(audio) // 2 * 2
        self._odd = audio[even:]
        return audio[:even]

    def _check_commit(self) -> None:
        seconds = round(self._items.uncommitted_s(self._session.received_s), 3)
        if seconds < LEAST_COMMIT_S:
            raise BadEvent(
                f"Error committing input audio buffer: expected at least {1000 * LEAST_COMMIT_S:g} "
                f"ms of audio, but the buffer has {1000 * seconds:g} ms.",
                code="input_audio_buffer_commit_empty",
            )

    async def _send(self, event: Event) -> None:
        await self._tell_items(self._items.on(event))
        if isinstance(event, Final):
            self._session.acknowledge(event.seq)
        self._fewer.set()

    async def _tell_items(self, events: list[ItemEvent]) -> None:
        token_bytes = None
        if self._settings.logprobs:
            served = self.services.models.find(self._session.asked.model)
            token_bytes = served.engine.model.token_bytes
        for one in events:
            for message in told(one, token_bytes):
                await self._tell(message)

    async def _tell(self, message: dict[str, Any]) -> None:
        ours = {"event_id": f"event_{secrets.token_hex(ID_BYTES)}"}
        await self.send_json({"type": message["type"], **ours, **message})

    def _shown(self) -> dict[str, Any]:
        return show(self._settings, self._session_id)
