"""WebSockets of strangers: every end arrives, and floods fill nothing."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from service.api.live_connections import SLICE_BYTES

from .conftest import StartServer
from .harness import PATIENCE_S, Running
from .live_client import live
from .raw import HANDSHAKE, connected, frame, to_the_end

MB = 1024 * 1024


@pytest.mark.parametrize("started", [True, False], ids=["started", "first"])
@pytest.mark.parametrize("message", [bytes(MB + 1), bytes(20 * MB), "x" * (5 * MB)])
def test_the_end_of_a_message_that_is_too_long_always_arrives(
    shared: Running, message: str | bytes, started: bool
) -> None:
    # Whoever closes at once resets the connection of a sender that still writes.
    for _ in range(3):
        with live(shared, start=started) as client:
            client.socket.send(message)
            code, reason = client.close_code()
            assert code == 1009
            assert "exceeds limit" in reason


def test_so_it_does_where_the_message_comes_in_parts(shared: Running) -> None:
    with live(shared) as client:
        with suppress(ConnectionClosed):
            client.socket.send(iter([bytes(100_000)] * 80))
        assert client.close_code()[0] == 1009


@pytest.mark.parametrize(
    ("data", "code"),
    [(frame(3, b""), 1002), (frame(1, b"\xff"), 1007), (b"\x81\x05hello", 1002)],
    ids=["unknown kind", "no text", "no mask"],
)
def test_so_do_those_of_other_faults(shared: Running, data: bytes, code: int) -> None:
    with connected(shared) as one:
        one.sendall(HANDSHAKE + b"\r\n")
        assert one.recv(65_536).startswith(b"HTTP/1.1 101 ")
        one.sendall(data + frame(2, bytes(1000)) * 3000)
        received = to_the_end(one)
    assert received[0] == 0x88  # a close frame, and nothing before it
    assert int.from_bytes(received[2:4], "big") == code


def test_what_is_no_text_does_not_keep_a_close_from_being_answered(shared: Running) -> None:
    with connected(shared) as one:
        one.sendall(HANDSHAKE + b"\r\n")
        assert one.recv(65_536).startswith(b"HTTP/1.1 101 ")
        one.sendall(frame(1, b"\xff") + frame(8, (1000).to_bytes(2, "big")))
        assert to_the_end(one) == b"\x88\x02" + (1000).to_bytes(2, "big")


def test_who_floods_and_reads_nothing_is_let_go(server: StartServer) -> None:
    one = server(stall_seconds=0.5)
    pings = frame(9, bytes(125)) * 1000
    with connected(one) as flood:
        flood.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        flood.sendall(HANDSHAKE + b"\r\n")
        assert flood.recv(65_536).startswith(b"HTTP/1.1 101 ")
        flood.settimeout(0.2)
        num_sent = 0
        try:
            while num_sent < 100 * MB:
                flood.sendall(pings)
                num_sent += len(pings)
        except OSError:
            pass
        assert num_sent < 100 * MB, "every answer was kept for a reader who never came"
        one.eventually(lambda: not one.server.server_state.connections)


def test_what_is_read_meanwhile_does_not_let_the_flood_in_again(server: StartServer) -> None:
    one = server(stall_seconds=600)
    pings = frame(9, bytes(125)) * 1000 + frame(2, bytes(2))
    with connected(one) as flood:
        flood.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        flood.sendall(HANDSHAKE + b"\r\n" + frame(1, b'{"type": "start"}'))
        assert flood.recv(65_536).startswith(b"HTTP/1.1 101 ")
        flood.settimeout(1)
        with suppress(TimeoutError):
            for _ in range(40 * MB // len(pings)):
                flood.sendall(pings)
        (connection,) = one.server.server_state.connections
        assert connection.transport.get_write_buffer_size() < MB


def test_a_flood_of_small_messages_arrives_in_order(shared: Running) -> None:
    with live(shared) as client:
        samples = 3 * SLICE_BYTES
        for _ in range(samples // 6):
            client.socket.send(bytes(6))
        client.socket.ping().wait(PATIENCE_S)
        client.send(type="stop")
        assert client.until("done")["received_bytes"] == samples // 6 * 6


def test_a_refused_page_is_told_why(shared: Running) -> None:
    url = shared.url.replace("http", "ws") + "/live"
    other: Any = "http://other.example"
    with pytest.raises(InvalidStatus) as refused, connect(url, origin=other):
        pass
    answer = refused.value.response
    assert answer.status_code == 403
    assert b'"origin_not_allowed"' in (answer.body or b"")
