"""HTTP connections: uvicorn's, with an end for whoever sends no request, or none that can be read.

What a request's body is, and how fast it has to come, is `uploads`' business. Here is what happens
before there is a request, and what a body's framing costs.
"""

from __future__ import annotations

import asyncio
import http
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from service.api.errors import BUSY, INVALID_REQUEST, REQUEST_TIMEOUT, ROUTING, Answer, error_body
from service.api.slices import Slices
from service.api.stalls import Stalls

FAULT = "fault"  # in the state of a request's scope: what is wrong with its body's framing
LINGER_S = 2.0  # how long what still comes is dropped unread, so that the answer is read
AFTER_EOF_S = 1.0  # who ends their side may still read an answer that comes so soon
SLICE_BYTES = 16 * 1024  # of a body in chunks: 700 of the least, 15 ms of the loop's time
FEW_CHUNKS = 1024  # of a body: so many may be as small as they like
LEAST_CHUNK_BYTES = 16  # of the others on average: each costs the loop as much as 64 KB do


@dataclass(slots=True)
class Door:
    """What all connections share: limits, and who of them waits for a request, longest first."""

    header_s: float
    stall_s: float
    max_connections: int
    waiting: OrderedDict[Connection, None] = field(default_factory=OrderedDict)


class Wire(h11.Connection):
    """h11's connection, which remembers what it found wrong, and minds how a body is cut."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER)
        self.fault: h11.RemoteProtocolError | None = None
        self.chunked = False
        self.has_body = False
        self._num_chunks = 0
        self._num_bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            event = super().next_event()
            if isinstance(event, h11.Data):
                self._mind(event)
            elif isinstance(event, h11.Request):
                self._begin(event)
        except h11.RemoteProtocolError as error:
            self.fault = error
            raise
        return event

    def _begin(self, request: h11.Request) -> None:
        if not request.http_version.startswith(b"1."):
            raise h11.RemoteProtocolError("not HTTP/1")
        given = dict(request.headers)
        self.chunked = b"transfer-encoding" in given
        self.has_body = self.chunked or given.get(b"content-length", b"0") != b"0"
        self._num_chunks = self._num_bytes = 0
        if self.chunked and b"content-length" in given:
            # Two machines that each believe another of them see two requests.
            raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")

    def _mind(self, data: h11.Data) -> None:
        self._num_bytes += len(data.data)
        self._num_chunks += data.chunk_start
        if self._num_bytes < LEAST_CHUNK_BYTES * (self._num_chunks - FEW_CHUNKS):
            raise h11.RemoteProtocolError(
                f"chunks of less than {LEAST_CHUNK_BYTES} bytes: send the body in larger ones"
            )


class Connection(H11Protocol):
    """One connection: `door` is shared, the other arguments are uvicorn's."""

    conn: Wire

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = Wire()
        self._door = door
        self._header_timer: asyncio.TimerHandle | None = None
        self._heard = False  # of the request that is waited for
        self._ended = False  # their side
        self._deaf = False  # what comes is dropped: nothing in it can be understood
        self._slices = Slices(SLICE_BYTES, self._feed, lambda: self.flow.read_paused)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._stalls = Stalls(transport, self._door.stall_s)
        self.flow = _SlicedFlow(transport, self._slices)
        self._slices.attach(transport)
        if len(self.connections) <= self._door.max_connections or self._make_room():
            self._await_request()
        else:
            self._refuse(BUSY, "Too many connections.", "retry-after: 5\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._slices.stop()
        self._stalls.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._deaf:
            # Of a body with a length a piece is one event, and of chunks as many as there are.
            cut = self.conn.chunked or self.conn.their_state is h11.IDLE
            self._slices.add(data, cut=cut)

    def _feed(self, data: bytes) -> None:
        if self._deaf or self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.get_protocol() is not self:  # the connection is a WebSocket's now
            self._stop_waiting()
            self._slices.stop()
        elif self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif not self._heard:
            self._await_request(heard=True)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """What came whole may be answered still, if that takes no longer than a moment.

        A client that has left looks the same, so its work ends then.
        """
        cycle = self.cycle
        if self._deaf or cycle is None or cycle.response_complete or cycle.more_body:
            return None
        self._ended = True
        self.loop.call_later(AFTER_EOF_S, self.transport.close)
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalls.watch()

    def resume_writing(self) -> None:
        self._stalls.stop()
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._stalls.watch()
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            return
        if self._ended:
            self.transport.close()
        else:
            self._await_request(heard=bool(self.conn.trailing_data[0]), idle=True)

    def shutdown(self) -> None:
        if self._deaf:
            self.transport.close()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Says what is wrong with a request: at once, or for a body where it is being read."""
        fault = self.conn.fault
        what = str(fault or msg).partition(": bytearray(")[0]  # h11 goes on with what it was sent
        message = f"The request cannot be read: {what}."
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            # An unknown transfer encoding or version is a client's mistake too: no 501, no 505,
            # which operators would be woken for.
            too_large = fault is not None and fault.error_status_hint == 431
            self._refuse(ROUTING[431] if too_large else INVALID_REQUEST, message)
            return
        self._deaf = True
        self._slices.stop()
        cycle.scope["state"][FAULT] = message
        cycle.message_event.set()
        self._read_on()

    def _should_upgrade(self) -> bool:
        """Of what asks for an upgrade, only the beginning of a WebSocket is one."""
        return (
            self.scope["method"] == "GET"
            and self.scope["http_version"] == "1.1"
            and not self.conn.has_body
            and self._get_upgrade() == b"websocket"
        )

    def _await_request(self, *, heard: bool = False, idle: bool = False) -> None:
        """A request may begin. `idle`: after another, where uvicorn's timer runs until it does."""
        self._stop_waiting()
        self._heard = heard
        self._door.waiting[self] = None
        if heard or not idle:
            self._header_timer = self.loop.call_later(self._door.header_s, self._header_overdue)

    def _stop_waiting(self) -> None:
        self._door.waiting.pop(self, None)
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_overdue(self) -> None:
        if self.transport.is_closing():
            return
        if self._heard:
            message = f"The request's head did not arrive within {self._door.header_s:g} s."
            self._refuse(REQUEST_TIMEOUT, message)
        else:
            self._stop_waiting()
            self.transport.close()

    def _make_room(self) -> bool:
        """The connection that has been idle longest gives way, if one is."""
        if not self._door.waiting:
            return False
        idle, _ = self._door.waiting.popitem(last=False)
        idle._stop_waiting()
        idle.transport.close()
        return True

    def _refuse(self, answer: Answer, message: str, headers: str = "") -> None:
        """Answers without a request, ends this side, and reads what still comes for a while:
        to close on a sender who still writes would reset the connection and lose the answer."""
        self._stop_waiting()
        self._unset_keepalive_if_required()
        self._deaf = True
        self._slices.stop()
        self.transport.write(refusal(answer, message, headers))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._read_on()
        self._stalls.watch()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _read_on(self) -> None:
        """Whoever paused the reading: what comes is dropped from now on."""
        self.flow.resume_reading()
        self.transport.resume_reading()


def refusal(answer: Answer, message: str, headers: str = "") -> bytes:
    """A whole answer in OpenAI's shape, for a connection on which nothing else can be said."""
    body = json.dumps(error_body(answer, message)).encode()
    head = (
        f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body


class _SlicedFlow(FlowControl):
    """uvicorn's, in which what was received already goes before what is read next."""

    def __init__(self, transport: asyncio.Transport, slices: Slices) -> None:
        super().__init__(transport)
        self._slices = slices

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._slices.resume()
