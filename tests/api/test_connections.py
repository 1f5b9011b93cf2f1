"""Connections of strangers: what is no request is told so, and what is one is answered."""

from __future__ import annotations

import time

import pytest

from service.families.fake import FakeModel

from .conftest import StartServer
from .harness import Gate, Running, voice
from .raw import CHUNKED, CLOSE, GET, HANDSHAKE, POST, answers, ask, code


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
