"""WebSocket connections: uvicorn's, whose ends arrive, and which hold nothing without bound."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import State

from service.api.connections import refusal
from service.api.errors import INVALID_REQUEST
from service.api.slices import Slices
from service.api.stalls import Stalls

SLICE_BYTES = 4 * 1024  # 700 of the smallest messages
LINGER_S = 5.0  # how long what still comes is dropped unread, so that the close frame is read


class LiveConnection(WebSocketsSansIOProtocol):
    """One WebSocket. The arguments are uvicorn's, how long nobody need read what we send, and the
    bytes of a message on paths with such ends, where they are not `ws_max_size`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        stall_s: float,
        max_bytes: Mapping[str, int],
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._stall_s = stall_s
        self._max_bytes = max_bytes
        self._failed = False
        self._slices = Slices(SLICE_BYTES, self._feed, self._is_held)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._stalls = Stalls(self.transport, self._stall_s)
        self._slices.attach(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stalls.stop()
        self._slices.stop()
        super().connection_lost(exc)

    def handle_connect(self, event: Request) -> None:
        path = event.path.partition("?")[0]
        for end, size in self._max_bytes.items():
            if path.endswith(end):  # a proxy may have left its prefix before it
                self.conn.max_message_size = size
        super().handle_connect(event)

    def data_received(self, data: bytes) -> None:
        if not self._failed:
            self._slices.add(data, cut=True)

    def _feed(self, data: bytes) -> None:
        if self._failed or self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse_handshake()

    def _refuse_handshake(self) -> None:
        """uvicorn waits for ever for a handshake that could not be read."""
        answer = b"".join(self.conn.data_to_send())
        message = "The request cannot be read: it does not begin a WebSocket."
        self.transport.write(answer or refusal(INVALID_REQUEST, message))
        self.handshake_complete = True
        self.close_sent = True
        self._hang_up()

    def send_receive_event_to_app(self) -> None:
        """What is no text ends the connection with 1007, unless the client has closed it in the
        same bytes: that is answered already, and uvicorn fails at closing it again."""
        if self.curr_msg_data_type == "bytes" or self.close_sent or _is_text(self.frames):
            super().send_receive_event_to_app()
            return
        self.frames = []
        if self.conn.state is State.OPEN:
            self.conn.send_close(CloseCode.INVALID_DATA)
            self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Says why with a close frame, and lets it arrive: who is sending still would get a
        connection reset instead if it were closed at once."""
        assert self.conn.close_sent is not None
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._hang_up()

    def _hang_up(self) -> None:
        """Ends our side, and drops what still comes until theirs ends, or for a while."""
        self._failed = True
        self._slices.stop()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self._stalls.watch()
        # uvicorn leaves the connection open after the application has ended while this runs.
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)

    async def send(self, message: Any) -> None:
        await self.writable.wait()
        if self._failed:
            raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.close":
            self._slices.resume()  # behind what nobody receives any more is the client's own close
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # else uvicorn logs that there was no answer

    async def receive(self) -> Any:
        message = await super().receive()
        if not self.read_paused and not self._failed:  # uvicorn has it read again
            self._slices.resume()
        return message

    def _is_held(self) -> bool:
        """What is not read is not answered either: not even a ping."""
        return self.read_paused or not self.writable.is_set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()
        self._stalls.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalls.stop()
        self._slices.resume()


def _is_text(frames: list[bytes]) -> bool:
    try:
        b"".join(frames).decode()
    except UnicodeDecodeError:
        return False
    return True
