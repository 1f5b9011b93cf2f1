"""`/live`: the WebSocket of a live session. `docs/live.md` describes its messages."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket

from service.api.errors import Answer, error_body
from service.api.live_messages import Start, done, event, read_message, read_start, ready
from service.api.talks import DONE, RESTART, Closing, Talk
from service.errors import InvalidRequest
from service.live.messages import Event, Message, Refused
from service.live.session import Final, Partial

router = APIRouter()


@router.websocket("/live")
async def live(socket: WebSocket) -> None:
    """A session's messages until it is done, and the close code that says how it ended."""
    await LiveTalk(socket).attend()


class LiveTalk(Talk):
    """JSON and audio in, JSON out."""

    path = "/live"
    # A browser that sends its key as a subprotocol wants one to be chosen, and not that.
    protocols = ("live",)

    async def converse(self) -> Closing:
        services = self.services
        services.check_ready()
        start = await self._read_start()
        self.profile = start.asked.request.profile.name
        live = services.live
        async with live.hold(start.asked, start.session_id, start.after) as (session, resumed):
            await self.send_json(ready(session, resumed))
            await live.converse(session, self._receive, self._send)
            if live.draining:
                return RESTART, "the service is shutting down"
            await self.send_json(done(session))
            return DONE, ""

    async def complain(self, answer: Answer, failure: Exception, message: str) -> None:
        param = getattr(failure, "param", None)
        await self.send_json({"type": "error", **error_body(answer, message, param)})

    async def _read_start(self) -> Start:
        first = await self.next_message()
        if isinstance(first, bytes):
            raise InvalidRequest('Send a text message with "type": "start" before audio.', "type")
        return await read_start(first, self.services)

    async def _receive(self) -> Message:
        message = await self.next_message()
        return message if isinstance(message, bytes) else read_message(message)

    async def _send(self, one: Event) -> None:
        if isinstance(one, Partial | Final | Refused):
            await self.send_json(event(one))
