"""`/live`: the WebSocket of a live session. `docs/live.md` describes its messages."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from service.api.context import log_unexpected
from service.api.errors import INTERNAL_ERROR, answer_to, error_object
from service.api.live_messages import (
    Start,
    done,
    error,
    event,
    read_message,
    read_start,
    ready,
)
from service.api.services import Services, services_of
from service.errors import DeadlineExceeded, InvalidRequest, WinnowError
from service.live.conversation import Event, Message
from service.live.registry import TakenOver

logger = logging.getLogger("winnow.api")

# RFC 6455, 7.4.1, and IANA's registry of close codes.
DONE, IDLE, BAD_MESSAGE, INTERNAL, RESTART, TRY_LATER = 1000, 1001, 1008, 1011, 1012, 1013
CLIENT_GONE = 1006  # never sent: what a connection that broke off is logged as
BROKEN = (1002, 1007, 1009)  # what the connection itself closes with: no frame, no text, too big
TAKEN_OVER = 4001  # ours: 4000 and above are for applications
CLOSE_CODES = {400: BAD_MESSAGE, 429: TRY_LATER, 503: TRY_LATER, 504: IDLE}  # by HTTP status
MAX_REASON_BYTES = 123  # RFC 6455, 5.5: a close frame has 125, two of them the code

router = APIRouter()


@router.websocket("/live")
async def live(socket: WebSocket) -> None:
    """A session's messages until it is done, and the close code that says how it ended."""
    services = services_of(socket)
    began = time.perf_counter()
    # A browser that sends its key as a subprotocol wants one to be chosen, and not that.
    await socket.accept("live" if "live" in socket.scope["subprotocols"] else None)
    connection = _Connection(socket, services)
    try:
        code, reason = await connection.serve()
        await socket.close(code, reason)
    except WebSocketDisconnect as gone:
        services.metrics.cancelled.labels("client_gone").inc()
        code = gone.code if gone.code in BROKEN else CLIENT_GONE
    seconds = time.perf_counter() - began
    logger.info("WS /live %d profile=%s seconds=%.3f", code, connection.profile or "-", seconds)


class _Connection:
    """One WebSocket: JSON and audio in, JSON out."""

    def __init__(self, socket: WebSocket, services: Services) -> None:
        self._socket = socket
        self._services = services
        self.profile = ""

    async def serve(self) -> tuple[int, str]:
        """The close code and its reason. Raises WebSocketDisconnect for a client that has left."""
        try:
            return await self._talk()
        except TakenOver:
            return TAKEN_OVER, "another connection has resumed this session"
        except WinnowError as failure:
            await self._send_json(error(failure))
            code = CLOSE_CODES.get(answer_to(failure).status, INTERNAL)
            return code, _shortened(str(failure))
        except WebSocketDisconnect:
            raise
        except Exception as failure:
            log_unexpected("-", failure)
            message = "Something went wrong here."
            await self._send_json({"type": "error", "error": error_object(INTERNAL_ERROR, message)})
            return INTERNAL, message

    async def _talk(self) -> tuple[int, str]:
        services = self._services
        services.check_ready()
        start = await self._read_start()
        self.profile = start.asked.request.profile.name
        live = services.live
        async with live.hold(start.asked, start.session_id, start.after) as (session, resumed):
            await self._send_json(ready(session, services.engine.model.info.name, resumed))
            await live.converse(session, self._receive, self._send)
            if live.draining:
                return RESTART, "the service is shutting down"
            await self._send_json(done(session))
            return DONE, ""

    async def _read_start(self) -> Start:
        first = await self._next()
        if isinstance(first, bytes):
            raise InvalidRequest('Send a text message with "type": "start" before audio.', "type")
        return read_start(first, self._services)

    async def _receive(self) -> Message:
        message = await self._next()
        return message if isinstance(message, bytes) else read_message(message)

    async def _next(self) -> str | bytes:
        limit_s = self._services.config.live_idle_seconds
        try:
            async with asyncio.timeout(limit_s):
                message = await self._socket.receive()
        except TimeoutError:
            raise DeadlineExceeded(f"Nothing was sent for {limit_s} s.") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", CLIENT_GONE))
        text: str | None = message.get("text")
        audio: bytes | None = message.get("bytes")
        return text if text is not None else audio or b""

    async def _send(self, one: Event) -> None:
        await self._send_json(event(one))

    async def _send_json(self, value: dict[str, Any]) -> None:
        await self._socket.send_json(value)


def _shortened(reason: str) -> str:
    """What fits a close frame; the error message before it has the whole sentence."""
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
