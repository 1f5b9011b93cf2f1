"""What the WebSockets share: how one is accepted, read and closed, and its line of log."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from fastapi import WebSocket, WebSocketDisconnect

from service.api.context import log_unexpected
from service.api.errors import INTERNAL_ERROR, Answer, answer_to
from service.api.services import Services, services_of
from service.errors import DeadlineExceeded, WinnowError
from service.live.registry import TakenOver

logger = logging.getLogger("winnow.api")

# RFC 6455, 7.4.1, and IANA's registry of close codes.
DONE, IDLE, BAD_MESSAGE, INTERNAL, RESTART, TRY_LATER = 1000, 1001, 1008, 1011, 1012, 1013
CLIENT_GONE = 1006  # never sent: what a connection that broke off is logged as
BROKEN = (1002, 1007, 1009)  # what the connection itself closes with: no frame, no text, too big
LEFT = (1000, 1001, 1005)  # how clients close: done, going away, without a code
TAKEN_OVER = 4001  # ours: 4000 and above are for applications
CLOSE_CODES = {  # by HTTP status
    **{400: BAD_MESSAGE, 404: BAD_MESSAGE},
    **{429: TRY_LATER, 503: TRY_LATER, 504: IDLE},
}
MAX_REASON_BYTES = 123  # RFC 6455, 5.5: a close frame has 125, two of them the code

Closing = tuple[int, str]  # a close code, and its reason in words


class Talk(ABC):
    """One WebSocket with a session, from its acceptance to its close code."""

    path: ClassVar[str]
    # Subprotocols, one of which is chosen where it is offered: a browser that sends its key as a
    # subprotocol wants one to be chosen, and not that.
    protocols: ClassVar[Sequence[str]]
    may_leave: ClassVar[bool] = False  # whether a client that closes is done, and not cut off

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self.services: Services = services_of(socket)
        self.profile = ""

    @abstractmethod
    async def converse(self) -> Closing:
        """The session, from the first message; how it ended."""

    @abstractmethod
    async def complain(self, answer: Answer, failure: Exception, message: str) -> None:
        """Tells the client why the connection is about to be closed."""

    async def attend(self) -> None:
        """Serves the client until the session is over or it has left."""
        began = time.perf_counter()
        offered = self._socket.scope.get("subprotocols", [])
        spoken = next((name for name in self.protocols if name in offered), None)
        await self._socket.accept(spoken)
        try:
            code, reason = await self._serve()
            await self._socket.close(code, _shortened(reason))
        except WebSocketDisconnect as gone:
            code = gone.code if gone.code in self._known_ends else CLIENT_GONE
            if code not in LEFT:
                self.services.metrics.cancelled.labels("client_gone").inc()
        seconds = time.perf_counter() - began
        profile = self.profile or "-"
        logger.info("WS %s %d profile=%s seconds=%.3f", self.path, code, profile, seconds)

    async def next_message(self) -> str | bytes:
        """Raises DeadlineExceeded where nothing comes, WebSocketDisconnect where nobody is left."""
        limit_s = self.services.config.live_idle_seconds
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

    async def send_json(self, value: dict[str, Any]) -> None:
        await self._socket.send_json(value)

    @property
    def _known_ends(self) -> tuple[int, ...]:
        return (*BROKEN, *LEFT) if self.may_leave else BROKEN

    async def _serve(self) -> Closing:
        try:
            return await self.converse()
        except TakenOver:
            return TAKEN_OVER, "another connection has resumed this session"
        except WinnowError as failure:
            answer = answer_to(failure)
            await self.complain(answer, failure, str(failure))
            return CLOSE_CODES.get(answer.status, INTERNAL), str(failure)
        except WebSocketDisconnect:
            raise
        except Exception as failure:
            log_unexpected("-", failure)
            message = "Something went wrong here."
            await self.complain(INTERNAL_ERROR, failure, message)
            return INTERNAL, message


def _shortened(reason: str) -> str:
    """What fits a close frame; the error message before it has the whole sentence."""
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
