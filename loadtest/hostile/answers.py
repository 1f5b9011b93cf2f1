"""What came back over a connection, and whether it is what was owed."""

from __future__ import annotations

import json
from dataclasses import dataclass

from loadtest.hostile.sockets import close_code
from loadtest.hostile.trials import Due, Trial

SWITCHED = 101
REFUSED = "refused"
INTERNAL_CLOSE = 1011  # RFC 6455's 500


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `whole`: all of its body is there."""

    status: int
    body: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Received:
    """All that came, until the connection `ended`, all was there, or the time was up (`late`).

    `seconds`: from the last byte that was sent. `refused`: there was no connection.
    """

    content: bytes
    ended: bool
    late: bool
    seconds: float
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial. `status`: as `200`, `101 1008` with the code of a WebSocket's end,
    `-` for none, or `refused`. `began` and `ended` are readings of `time.monotonic()`."""

    number: int
    kind: str
    what: str
    status: str
    seconds: float
    fault: str | None
    began: float
    ended: float


def answer_in(content: bytes, ended: bool) -> Answer | None:
    """The first final answer in what a server sent; None until its head is there."""
    while True:
        head, found, rest = content.partition(b"\r\n\r\n")
        start = head.split(b"\r\n", 1)[0].split()
        if not found or len(start) < 2 or not start[1].isdigit():
            return None
        status = int(start[1])
        if status >= 200 or status == SWITCHED:
            break
        content = rest
    headers = dict(_header(line) for line in head.split(b"\r\n")[1:])
    if status == SWITCHED:
        return Answer(status, rest, close_code(rest) is not None)
    if b"chunked" in headers.get(b"transfer-encoding", b""):
        body, whole = _unchunked(rest)
        return Answer(status, body, whole)
    if (length := headers.get(b"content-length", b"")).isdigit():
        return Answer(status, rest[: int(length)], len(rest) >= int(length))
    return Answer(status, rest, ended)


def settled(content: bytes, ended: bool) -> bool:
    """Whether there is nothing more to wait for."""
    answer = answer_in(content, ended)
    return ended or (answer is not None and answer.whole)


def status_of(got: Received) -> str:
    """How an outcome calls what came."""
    if got.refused:
        return REFUSED
    answer = answer_in(got.content, got.ended)
    if answer is None:
        return "-"
    if answer.status == SWITCHED:
        return f"{SWITCHED} {close_code(answer.body) or '-'}"
    return str(answer.status)


def fault_in(trial: Trial, got: Received) -> str | None:
    """What is against the rules in what came, in words."""
    if got.refused:
        return "no connection"
    answer = answer_in(got.content, got.ended)
    if answer is not None and answer.status >= 500:
        return f"answered {answer.status}: {_shortened(answer.body)}"
    if _ended_with(answer) == INTERNAL_CLOSE:
        return f"closed with {INTERNAL_CLOSE}"
    if trial.due is Due.NOTHING:
        return None
    if got.late:
        return f"no end after {got.seconds:.1f} s"
    if trial.due is Due.ANSWER:
        return _fault_in_answer(answer)
    if trial.due is Due.SOCKET:
        return _fault_in_socket(answer)
    return None


def _ended_with(answer: Answer | None) -> int | None:
    return close_code(answer.body) if answer and answer.status == SWITCHED else None


def _fault_in_socket(answer: Answer | None) -> str | None:
    if answer is None:
        return "the connection ended without an answer"
    if answer.status == SWITCHED and close_code(answer.body) is None:
        return "the WebSocket ended without a close frame"
    return None


def _fault_in_answer(answer: Answer | None) -> str | None:
    if answer is None or not answer.whole:
        return "the connection ended without a whole answer"
    if answer.status < 400:
        return None
    try:
        error = json.loads(answer.body)["error"]
        said = isinstance(error["message"], str) and {"type", "param", "code"} <= set(error)
    except (ValueError, KeyError, TypeError):
        said = False
    return None if said else f"{answer.status} that is no error: {_shortened(answer.body)}"


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.strip().lower(), value.strip().lower()


def _unchunked(rest: bytes) -> tuple[bytes, bool]:
    body = b""
    while True:
        size, found, rest = rest.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            return body, False
        if not found or len(rest) < length + 2:
            return body + rest[:length], False
        if not length:
            return body, True
        body, rest = body + rest[:length], rest[length + 2 :]


def _shortened(body: bytes) -> str:
    return body[:200].decode(errors="backslashreplace")
