"""Bytes on a socket, for what no client library would send."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from .harness import PATIENCE_S, Running

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /transcribe HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSE = b"Connection: close\r\n\r\n"
HANDSHAKE = (
    b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@contextmanager
def connected(server: Running) -> Iterator[socket.socket]:
    """A connection to the server, which waits as long as a test does."""
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), PATIENCE_S) as one:
        yield one


def to_the_end(one: socket.socket) -> bytes:
    """What comes until the server ends its side. An end by a reset fails the test."""
    received = b""
    while piece := one.recv(65_536):
        received += piece
    return received


def ask(server: Running, *pieces: bytes, end: bool = False) -> bytes:
    """Sends the pieces, with `end` ends this side, and reads to the end."""
    with connected(server) as one:
        for piece in pieces:
            one.sendall(piece)
        if end:
            one.shutdown(socket.SHUT_WR)
        return to_the_end(one)


def answers(received: bytes) -> list[tuple[int, Any]]:
    """Status and JSON of each answer with a length; None where there is no body."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = int(headers.get("content-length", 0))
        body, received = received[:length], received[length:]
        found.append((int(lines[0].split()[1]), json.loads(body) if body else None))
    return found


def code(received: bytes) -> tuple[int, str]:
    """Status and code of the one answer, an error in OpenAI's shape."""
    ((status, body),) = answers(received)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return status, body["error"]["code"]


def frame(opcode: int, data: bytes, *, last: bool = True) -> bytes:
    """A client's WebSocket frame, with a mask of zeros."""
    size = len(data)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([(0x80 if last else 0) | opcode]) + length + bytes(4) + data
