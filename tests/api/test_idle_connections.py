"""Connections of strangers: who sends or reads nothing is let go, and a crowd has its limits."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from service.families.fake import FakeModel

from .conftest import StartServer
from .harness import Gate, Running, running, voice
from .raw import CLOSE, GET, POST, answers, ask, code, connected, to_the_end

PATIENT: dict[str, Any] = {"header_seconds": 600, "stall_seconds": 600}


@pytest.fixture(scope="module")
def hasty() -> Iterator[Running]:
    """One server that waits for nobody."""
    with running(header_seconds=0.3, stall_seconds=0.3) as one:
        yield one


def test_silent_connections_are_closed(hasty: Running) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(hasty)) for _ in range(20)]
        assert [to_the_end(each) for each in silent] == [b""] * 20


def trickle(slow: socket.socket) -> bytes:
    """What is answered to who goes on sending 50 bytes a second at most, of 500."""
    slow.settimeout(0.02)
    received = b""
    while not received:
        slow.sendall(b"a")
        try:
            received = slow.recv(1)
        except TimeoutError:
            continue
    slow.settimeout(60)
    return received + to_the_end(slow)


def test_half_a_head_is_answered_that_it_is_late(hasty: Running) -> None:
    assert code(ask(hasty, GET)) == (408, "request_timeout")


def test_a_head_that_trickles_has_no_longer(hasty: Running) -> None:
    with connected(hasty) as slow:
        slow.sendall(GET + b"A: ")
        assert code(trickle(slow)) == (408, "request_timeout")


def test_the_head_after_a_request_has_no_longer_either(server: StartServer) -> None:
    one = server(header_seconds=0.3, keep_alive_seconds=600)
    first, late = answers(ask(one, GET + b"\r\n" + GET))
    assert first == (200, {"status": "ok"})
    assert late[0] == 408


def test_blank_lines_keep_no_connection(server: StartServer) -> None:
    one = server(header_seconds=0.3, keep_alive_seconds=600)
    with connected(one) as blank:
        blank.sendall(GET + b"\r\n\r\n")
        assert answers(to_the_end(blank))[0][0] == 200


def test_an_idle_connection_is_kept_for_as_long_as_is_set(server: StartServer) -> None:
    one = server(header_seconds=0.2, keep_alive_seconds=0.8)
    with connected(one) as idle:
        idle.sendall(GET + b"\r\n")
        received = idle.recv(65_536)
        began = time.monotonic()
        received += to_the_end(idle)
        assert time.monotonic() - began > 0.7
        assert answers(received) == [(200, {"status": "ok"})]


@pytest.mark.parametrize("body", [b"", b"RIFF" * 1000], ids=["nothing", "a beginning"])
def test_a_stalled_upload_is_answered_that_it_is_slow(hasty: Running, body: bytes) -> None:
    counted = hasty.metric("winnow_cancelled_total", reason="slow_upload")
    received = ask(hasty, POST + b"Content-Length: 100000\r\n\r\n" + body)
    assert code(received) == (408, "request_timeout")
    assert hasty.metric("winnow_cancelled_total", reason="slow_upload") == counted + 1


def test_a_trickling_upload_is_too(hasty: Running) -> None:
    with connected(hasty) as slow:
        slow.sendall(POST + b"Content-Length: 100000\r\n\r\n")
        assert code(trickle(slow)) == (408, "request_timeout")


def test_where_all_places_are_taken_the_slowest_gives_way(server: StartServer) -> None:
    one = server(max_uploads=2, stall_seconds=600)
    with connected(one) as first, connected(one) as second:
        for each in (first, second):
            each.sendall(POST + b"Content-Length: 100000\r\n\r\n")
        one.eventually(lambda: len(one.services.uploads._reading) == 2)
        early = one.transcribe(voice(1))
        assert early.status_code == 429
        assert int(early.headers["retry-after"]) >= 1
        time.sleep(1.1)  # now both are slow
        assert one.transcribe(voice(1)).status_code == 200
        assert code(to_the_end(first)) == (408, "request_timeout")
        assert one.client.get("/healthz").status_code == 200


def test_too_much_at_once_is_refused_before_it_is_read(server: StartServer) -> None:
    one = server(max_uploading_mb=8)
    with connected(one) as large:
        large.sendall(POST + b"Content-Length: 8000000\r\n\r\n" + bytes(100_000))
        one.eventually(lambda: len(one.services.uploads._reading) == 1)
        received = ask(one, POST + b"Content-Length: 8000000\r\n\r\n", end=True)
        assert code(received) == (429, "queue_full")
        assert b"retry-after: " in received
        assert one.transcribe(voice(1)).status_code == 200  # what is small always fits


def test_the_connection_that_was_idle_longest_gives_way(server: StartServer) -> None:
    one = server(max_connections=3, **PATIENT)
    with connected(one) as first, connected(one) as second:
        one.eventually(lambda: len(one.server.server_state.connections) == 2)
        with connected(one) as third, connected(one) as fourth:
            assert to_the_end(first) == b""
            for each in (second, third, fourth):
                each.sendall(GET + CLOSE)
                assert answers(to_the_end(each)) == [(200, {"status": "ok"})]


def test_where_no_connection_is_idle_a_new_one_is_told_to_come_back(server: StartServer) -> None:
    gate = Gate()
    one = server(lambda: FakeModel(fail_encode_when=gate), max_connections=1, **PATIENT)
    wav = voice(1)
    with connected(one) as busy:
        try:
            busy.sendall(POST + b"Content-Length: %d\r\n" % len(wav) + CLOSE + wav)
            assert gate.reached.wait(60)
            received = ask(one, GET)
            assert code(received) == (503, "too_many_connections")
            assert b"retry-after: 5" in received
        finally:
            gate.opened.set()
        assert answers(to_the_end(busy))[0][0] == 200


def sent_whole(one: socket.socket, data: bytes) -> bool:
    try:
        one.sendall(data)
    except TimeoutError:
        return False
    return True


def test_answers_that_nobody_reads_are_not_kept(server: StartServer) -> None:
    one = server(stall_seconds=0.5, keep_alive_seconds=600)
    page = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(one) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(0.2)
        for _ in iter(lambda: sent_whole(deaf, page * 100), False):
            pass  # until the server reads no more either
        one.eventually(lambda: not one.server.server_state.connections)
    assert one.client.get("/healthz").status_code == 200
