"""Connections that are no whole HTTP request, or one that nobody sends."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from loadtest.hostile.damage import damaged
from loadtest.hostile.files import BOUNDARY, TRANSCRIBE, form_head, multipart
from loadtest.hostile.recordings import recording
from loadtest.hostile.sockets import handshake
from loadtest.hostile.trials import LIVE, Due, Made, Send, Target

PATHS = ("/", "/healthz", "/profiles", "/v1/models", "/metrics", TRANSCRIBE, LIVE, "/nowhere")
Spoken = tuple[str, tuple[Send, ...], Due]


def connection_trial(rng: Random, target: Target) -> Made:
    """One connection."""
    what, make = rng.choice(CONNECTIONS)
    path, sends, due = make(rng, target)
    return what, path, sends, due


def _form(target: Target) -> bytes:
    body = multipart([], recording("mp3/libmp3lame/16000"), "a.mp3", "audio/mpeg")
    return form_head(target, TRANSCRIBE, len(body)) + body


def _half(rng: Random, target: Target) -> Spoken:
    """A request that stops anywhere; then the client says so, waits, or leaves."""
    whole = _form(target)
    part = whole[: rng.choice((0, 1, 30, rng.randrange(200), rng.randrange(len(whole))))]
    due = rng.choice((Due.END, Due.NOTHING))
    return TRANSCRIBE, (Send(part, rng.choice((0.0, 0.3))),), due


def _slow(rng: Random, target: Target) -> Spoken:
    """A whole request, a few bytes at a time."""
    whole = _form(target)
    cuts = sorted(rng.randrange(1, len(whole)) for _ in range(rng.choice((5, 20))))
    parts = zip([0, *cuts], [*cuts, len(whole)], strict=True)
    return TRANSCRIBE, tuple(Send(whole[a:b], 0.05) for a, b in parts), Due.ANSWER


def _methods(rng: Random, target: Target) -> Spoken:
    path = rng.choice(PATHS)
    method = rng.choice(("HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "PRI",
                         "get", "BREW", "M-SEARCH", "X" * 300, "G\u00cbT", "POST",
                         "GET"))  # fmt: skip
    return path, (Send(target.head(method, path, {"Content-Length": 0})),), Due.END


def _targets(rng: Random, target: Target) -> Spoken:
    path = rng.choice(("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//nowhere/x", "/%00",
                       "/%",
                       "*", "", "http://nowhere/", "/" + "a" * 20_000, "/v1/models/" + "%2F" * 50,
                       "/v1/models/\u0000", "/\u00ff", "/healthz?" + "a&" * 20_000, "/docs/../x",
                       "/ /", "/v1/models/..;/x", "/metrics#a"))  # fmt: skip
    return path, (Send(target.head("GET", path)),), Due.END


def _heads(rng: Random, target: Target) -> Spoken:
    """Odd lines in the head of a request."""
    host = target.host.encode()
    odd = rng.choice(
        (b"", b"Host: a\r\nHost: b", b"Host:", b"X: " + b"a" * 100_000,
         b"X: 1\r\n" * 3000 + b"Y: 1",
         b": x", b"X", b"X : y", b" X: y", b"X: \0", b"X: \xff\xfe", b"\xff: 1", b"X: a\n b",
         b"Content-Length: -1", b"Content-Length: 1\r\nContent-Length: 2", b"Content-Length: 1, 1",
         b"Content-Length: 99999999999999999999", b"Content-Length: 0x10", b"Content-Length: \xb2",
         b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: x",
         b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"Expect: 100-continue", b"Expect: x",
         b"Connection: keep-alive, Upgrade", b"Cookie: " + b"a=b;" * 5000, b"Range: bytes=0-,5-1",
         b"Authorization: Bearer \xff", b"Accept-Encoding: gzip;q=nan", b"If-None-Match: *",
         b"Origin: http://nowhere", b"X-Request-ID: a\tb" + b"c" * 5000, b"Forwarded: for=\"[::\"")
    )  # fmt: skip
    start = rng.choice((b"GET /healthz", b"POST /transcribe", b"POST /v1/audio/transcriptions"))
    version = rng.choice(
        (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b"", b"http/1.1")
    )
    head = start + b" " + version + b"\r\nHost: " + host + b"\r\n" + odd + b"\r\n\r\n"
    return start.split()[1].decode(), (Send(head),), Due.END


def _upgrades(rng: Random, target: Target) -> Spoken:
    """Whole requests that ask for another protocol where there is none."""
    kind = rng.choice(("websocket", "h2c", "TLS/1.2", "websocket, h2c", "x"))
    more: dict[str, str | int] = {"Connection": "Upgrade", "Upgrade": kind}
    if rng.random() < 0.5:
        more |= {"Sec-WebSocket-Version": 13, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    if rng.random() < 0.5:
        path = rng.choice(("/healthz", "/profiles", "/v1/models"))
        return path, (Send(target.head("GET", path, more)),), Due.END
    body = multipart([], recording("mp3/libmp3lame/16000"), "a.mp3", "audio/mpeg")
    more |= {
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "Content-Length": len(body),
    }
    # Connection: Upgrade alone asks for no end; the answer has its length.
    return TRANSCRIBE, (Send(target.head("POST", TRANSCRIBE, more) + body),), Due.ANSWER


def _handshakes(rng: Random, target: Target) -> Spoken:
    odd = rng.choice(({"Sec_WebSocket_Version": "8"}, {"Sec_WebSocket_Version": "x"},
                      {"Sec_WebSocket_Key": ""}, {"Sec_WebSocket_Key": "\u00ff" * 30},
                      {"Origin": "null"}, {"Sec_WebSocket_Protocol": "a, realtime, " + "b" * 999},
                      {"Sec_WebSocket_Extensions": "permessage-deflate; x=y; " * 90},
                      {"Upgrade": "WebSocket"}, {"Connection": "close"}))  # fmt: skip
    path = rng.choice((LIVE, "/v1/realtime", "/transcribe", "/nowhere", LIVE + "?" + "a" * 9000))
    return path, (Send(handshake(target, path, bytes(16), **odd), 0.05),), Due.END


def _chunks(rng: Random, target: Target) -> Spoken:
    """Chunks with sizes that are none."""
    size = rng.choice((b"-1", b"ffffffffffffffff", b"1" * 5000, b"g", b"", b"0x5", b"5\n", b"+5",
                       b"5 ",
                       b"5;" + b"x" * 70_000, b"\xff"))  # fmt: skip
    headers = {"Content-Type": "audio/wav", "Transfer-Encoding": "chunked"}
    head = target.head("POST", TRANSCRIBE, headers)
    return TRANSCRIBE, (Send(head + size + b"\r\nRIFF0\r\n0\r\n\r\n"),), Due.END


def _pipelined(rng: Random, target: Target) -> Spoken:
    path = rng.choice(PATHS[:5])
    one = target.head("GET", path, {"Connection": "keep-alive"})
    return path, (Send(one * rng.choice((2, 50, 300)), 0.1),), rng.choice((Due.END, Due.NOTHING))


def _other_protocols(rng: Random, target: Target) -> Spoken:
    hello = rng.choice((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), b"\n" * 5000,
                        b"SSH-2.0-x\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n\r\n",
                        b"GET /\r\n\r\n",
                        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", bytes(2000), rng.randbytes(2000),
                        b"\r\n",
                        b"\0\x0d\x0a\x51\x55\x49\x54" * 50, b"a" * 200_000))  # fmt: skip
    return "/", (Send(hello),), Due.END


def _damaged(rng: Random, target: Target) -> Spoken:
    whole = target.head("POST", TRANSCRIBE, {"Content-Type": "audio/wav", "Content-Length": 4})
    return TRANSCRIBE, (Send(damaged(whole + b"RIFF", rng)[0]),), Due.END


def _bodies(rng: Random, target: Target) -> Spoken:
    """Bodies where none belongs."""
    path, method = rng.choice(PATHS), rng.choice(("GET", "DELETE", "OPTIONS", "HEAD"))
    head = target.head(method, path, {"Content-Length": 5000})
    return path, (Send(head + bytes(5000)),), Due.END


CONNECTIONS: tuple[tuple[str, Callable[[Random, Target], Spoken]], ...] = (
    ("half a request", _half),
    ("a slow request", _slow),
    ("an odd method", _methods),
    ("an odd target", _targets),
    ("an odd head", _heads),
    ("an upgrade to nothing", _upgrades),
    ("an odd handshake", _handshakes),
    ("chunks of no size", _chunks),
    ("many requests at once", _pipelined),
    ("another protocol", _other_protocols),
    ("a damaged head", _damaged),
    ("a body where none belongs", _bodies),
)
