"""Connections of strangers: what they send, or do not, ends soon and harms nobody."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from service.model.fake import FakeModel

from .conftest import StartServer
from .harness import Gate, Running, running, voice
from .raw import CHUNKED, CLOSE, GET, HANDSHAKE, POST, answers, ask, code, connected, to_the_end

PATIENT: dict[str, Any] = {"header_seconds": 600, "stall_seconds": 600}


@pytest.fixture(scope="module")
def hasty() -> Iterator[Running]:
    """One server that waits for nobody."""
    with running(header_seconds=0.3, stall_seconds=0.3) as one:
        yield one


@pytest.mark.parametrize(
    ("request_bytes", "status", "error"),
    [
        (b"GARBAGE\r\n\r\n", 400, "invalid_request"),
        (b"GET /healthz\r\n\r\n", 400, "invalid_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid_request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 3_000_000, 431, "headers_too_large"),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "invalid_request"),
        (POST + b"Content-Length: -1\r\n\r\n", 400, "invalid_request"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400, "invalid_request"),
        (
            POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "invalid_request",
        ),
    ],
    ids=[
        *("no request", "HTTP/0.9", "TLS", "HTTP/2", "no host", "bad header", "3 MB of header"),
        *("two lengths", "negative length", "gzip", "both framings"),
    ],
)
def test_what_is_no_request_is_told_so(
    shared: Running, request_bytes: bytes, status: int, error: str
) -> None:
    assert code(ask(shared, request_bytes)) == (status, error)


@pytest.mark.parametrize(
    "body",
    [b"zz\r\nabc\r\n", b"3\r\nabcdef\r\n", b"-1\r\n", b"1" * 30 + b"\r\n"],
    ids=["no number", "too long", "negative", "huge"],
)
def test_a_broken_chunk_is_told_though_more_is_being_sent(shared: Running, body: bytes) -> None:
    # Whoever answers and closes at once resets the connection of a sender that still writes.
    received = ask(shared, CHUNKED, body, bytes(3_000_000), end=True)
    assert code(received) == (400, "invalid_request")


@pytest.mark.parametrize("size", [1, 15])
def test_a_body_of_tiny_chunks_is_refused(shared: Running, size: int) -> None:
    chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    received = ask(shared, CHUNKED, chunk * 100_000, end=True)
    assert code(received) == (400, "invalid_request")
    assert b"send the body in larger ones" in received


def test_a_body_of_small_chunks_is_taken(shared: Running) -> None:
    wav = voice(1)
    few = [wav[at : at + 1] for at in range(1000)]
    rest = [wav[at : at + 100] for at in range(1000, len(wav), 100)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*few, *rest))
    received = ask(shared, POST, b"Transfer-Encoding: chunked\r\n", CLOSE, body, b"0\r\n\r\n")
    ((status, answer),) = answers(received)
    assert (status, answer["duration"]) == (200, 1.0)


def test_a_flood_of_chunks_leaves_the_others_their_turns(shared: Running) -> None:
    steps: list[float] = []  # of the loop's thread, in seconds of its own work
    loop = shared.server._loop
    assert loop is not None

    def tick(before: float | None = None) -> None:
        now = time.thread_time()
        if before is not None:
            steps.append(now - before)
        if not done:
            loop.call_later(0.001, tick, now)

    done: list[bool] = []
    loop.call_soon_threadsafe(tick)
    chunk = b"11\r\n%b\r\n" % bytes(17)
    ask(shared, CHUNKED, chunk * 10_000, end=True)  # 220 KB, which come as one piece or two
    done.append(True)
    assert max(steps) < sum(step for step in steps if step > 0.001) / 4


def test_silent_connections_are_closed(hasty: Running) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(hasty)) for _ in range(20)]
        assert [to_the_end(each) for each in silent] == [b""] * 20


def test_half_a_head_is_answered_that_it_is_late(hasty: Running) -> None:
    assert code(ask(hasty, GET)) == (408, "request_timeout")


def test_a_head_that_trickles_has_no_longer(hasty: Running) -> None:
    with connected(hasty) as slow:
        slow.sendall(GET + b"A: ")
        try:
            while not slow.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            pass
        slow.settimeout(0.02)
        received = b""
        while not received:
            slow.sendall(b"a")
            try:
                received = slow.recv(1)
            except TimeoutError:
                continue
        slow.settimeout(60)
        assert code(received + to_the_end(slow)) == (408, "request_timeout")


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
        slow.settimeout(0.02)
        received = b""
        while not received:
            slow.sendall(b"a")  # 50 bytes a second at most, of 500
            try:
                received = slow.recv(1)
            except TimeoutError:
                continue
        slow.settimeout(60)
        assert code(received + to_the_end(slow)) == (408, "request_timeout")


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


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"h2c, websocket", b"WebSocket"])
@pytest.mark.parametrize("method", [b"POST", b"HEAD"])
def test_a_request_that_asks_for_an_upgrade_is_answered(
    shared: Running, method: bytes, upgrade: bytes
) -> None:
    head = b" /readyz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: " + upgrade
    for body in (b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"):
        received = ask(shared, method + head + body)
        assert received.split(b" ", 2)[1] == (b"200" if method == b"HEAD" else b"405")


@pytest.mark.parametrize(
    ("handshake", "status"),
    [
        (HANDSHAKE.replace(b"Key: ", b"Kez: ") + b"\r\n", 400),
        (HANDSHAKE.replace(b"Version: 13", b"Version: 8") + b"\r\n", 400),
        (HANDSHAKE + b"Cookie: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (HANDSHAKE + b"A: b\r\n" * 300 + b"\r\n", 431),
        (HANDSHAKE.replace(b"1.1", b"1.0") + b"\r\n", 404),
        (HANDSHAKE.replace(b": Up", b": close, Up") + b"Content-Length: 3\r\n\r\nabc", 404),
    ],
    ids=["no key", "old version", "long header", "many headers", "HTTP/1.0", "body"],
)
def test_a_handshake_that_is_none_is_answered(
    shared: Running, handshake: bytes, status: int
) -> None:
    assert ask(shared, handshake).split(b" ", 2)[1] == b"%d" % status


@pytest.mark.parametrize(
    "target", [b"http://x/healthz?a=b", b"HTTP://x:80/healthz", b"https://x/healthz"]
)
def test_a_target_with_a_host_in_it_is_understood(shared: Running, target: bytes) -> None:
    received = ask(shared, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n" + CLOSE)
    assert answers(received) == [(200, {"status": "ok"})]


def test_requests_in_a_row_are_answered_in_a_row(shared: Running) -> None:
    ready = GET.replace(b"healthz", b"readyz")
    received = ask(shared, GET + b"\r\n" + ready + b"\r\n" + GET + CLOSE)
    assert answers(received) == [
        (200, {"status": "ok"}),
        (200, {"status": "ready"}),
        (200, {"status": "ok"}),
    ]


def test_who_ends_their_side_after_a_request_still_reads_the_answer(
    shared: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.connections.AFTER_EOF_S", 60.0)
    wav = voice(1)
    work = POST + b"Content-Length: %d\r\n\r\n" % len(wav) + wav
    ((status, answer),) = answers(ask(shared, work, end=True))
    assert (status, answer["duration"]) == (200, 1.0)
    for number in (1, 3):
        received = ask(shared, (GET + b"\r\n") * number, end=True)
        assert answers(received) == [(200, {"status": "ok"})] * number


def test_who_ends_their_side_and_leaves_is_found_out(server: StartServer) -> None:
    gate = Gate()
    one = server(lambda: FakeModel(fail_encode_when=gate))
    wav = voice(1)
    try:
        received = ask(one, POST + b"Content-Length: %d\r\n\r\n" % len(wav) + wav, end=True)
        assert received == b""
        one.eventually(lambda: one.metric("winnow_cancelled_total", reason="client_gone") == 1)
    finally:
        gate.opened.set()


def test_a_connection_is_good_for_more_after_a_refusal(shared: Running) -> None:
    bad = POST + b"Content-Length: 3\r\n\r\nabc"
    statuses = [status for status, _ in answers(ask(shared, bad + bad + GET + CLOSE))]
    assert statuses == [400, 400, 200]


def test_a_body_that_is_refused_unasked_is_not_asked_for(shared: Running) -> None:
    text = POST.replace(b"audio/wav", b"text/html")
    received = ask(shared, text + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", end=True)
    assert code(received)[0] == 400
    fine = POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n"
    assert ask(shared, fine + CLOSE + b"abc").startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 4")


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
