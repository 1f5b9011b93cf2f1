"""What the hostile drill takes for a fault."""

from __future__ import annotations

import pytest

from loadtest.hostile.answers import Received, answer_in, fault_in, settled, status_of
from loadtest.hostile.trials import Due, Trial

ERROR = b'{"error": {"message": "no", "type": "t", "param": null, "code": "c"}}'
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def http(status: int, body: bytes = b"{}", head: bytes = b"") -> bytes:
    length = b"" if b"chunked" in head else b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 %d Any\r\n%b%b\r\n%b" % (status, head, length, body)


def fault(due: Due, content: bytes, ended: bool = True, late: bool = False) -> str | None:
    return fault_in(
        Trial(0, "file", "x", "/", (), due), Received(content, ended, late, seconds=1.0)
    )


@pytest.mark.parametrize("due", Due)
@pytest.mark.parametrize("status", [500, 502, 503, 599])
def test_an_answer_of_500_or_more_is_a_fault_whatever_is_due(due: Due, status: int) -> None:
    assert f"answered {status}" in (fault(due, http(status, ERROR)) or "")


def test_what_is_in_order() -> None:
    assert fault(Due.ANSWER, http(200)) is None
    assert fault(Due.ANSWER, http(400, ERROR)) is None
    assert fault(Due.END, b"") is None
    assert fault(Due.END, http(400, b"Invalid HTTP request received.")) is None
    assert fault(Due.NOTHING, b"", ended=False, late=True) is None
    assert fault(Due.SOCKET, SWITCHED + b"\x88\x02\x03\xf0") is None
    assert fault(Due.SOCKET, http(404, ERROR)) is None


@pytest.mark.parametrize("due", [Due.ANSWER, Due.END, Due.SOCKET])
def test_no_end_is_a_fault(due: Due) -> None:
    assert "no end" in (fault(due, b"", ended=False, late=True) or "")


@pytest.mark.parametrize("content", [b"", b"HTTP/1.1 200 OK\r\n", http(200, b"abc")[:-1]])
def test_half_an_answer_is_a_fault(content: bytes) -> None:
    assert "without a whole answer" in (fault(Due.ANSWER, content) or "")


@pytest.mark.parametrize(
    "body", [b"", b"no", b"[]", b'{"error": ""}', b'{"error": {"message": "a"}}', b'{"detail": 1}']
)  # fmt: skip
def test_an_error_of_another_shape_is_a_fault(body: bytes) -> None:
    assert "no error" in (fault(Due.ANSWER, http(400, body)) or "")


def test_a_socket_ends_with_a_close_frame_that_is_no_failure() -> None:
    assert "1011" in (fault(Due.NOTHING, SWITCHED + b"\x88\x02\x03\xf3") or "")
    assert "without a close frame" in (fault(Due.SOCKET, SWITCHED + b"\x81\x02{}") or "")
    assert "without an answer" in (fault(Due.SOCKET, b"") or "")


def test_an_answer_is_whole_when_its_length_or_its_last_chunk_is_there() -> None:
    whole = http(200, b"abc")
    assert not settled(whole[:-1], ended=False)
    assert settled(whole, ended=False)
    chunks = b"3;x=y\r\nabc\r\n2\r\nde\r\n"
    chunked = http(200, chunks, b"Transfer-Encoding: chunked\r\n")
    assert not settled(chunked, ended=False)
    done = answer_in(chunked + b"0\r\n\r\n", ended=False)
    assert done is not None
    assert (done.body, done.whole) == (b"abcde", True)
    assert settled(b"HTTP/1.0 200 OK\r\n\r\nabc", ended=True)


def test_interim_answers_are_passed_over() -> None:
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert status(go_on + http(413)) == "413"
    assert status(go_on) == "-"


def test_the_name_of_what_came() -> None:
    assert status(SWITCHED + b"\x88\x02\x03\xf0") == "101 1008"
    assert status(SWITCHED) == "101 -"
    assert status(b"220 ftp ready\r\n\r\n") == "-"


def status(content: bytes) -> str:
    return status_of(Received(content, ended=False, late=False, seconds=1.0))


@pytest.mark.parametrize("due", Due)
def test_no_connection_is_a_fault(due: Due) -> None:
    got = Received(b"", ended=True, late=False, seconds=0.0, refused=True)
    assert fault_in(Trial(0, "file", "x", "/", (), due), got) == "no connection"
    assert status_of(got) == "refused"
