"""Messages to the WebSockets in the wrong order, with the wrong content, or in no frames."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from random import Random

from loadtest.hostile.damage import damaged
from loadtest.hostile.sockets import (
    BINARY,
    COMPRESSED,
    FINAL,
    TEXT,
    close,
    frame,
    handshake,
    pieces,
)
from loadtest.hostile.trials import LIVE, REALTIME, Due, Made, Send, Target

MIB = 2**20
JUNK = (
    *("", "{", "null", "[]", '"start"', "{}", '{"type": 1}', '{"type": null}', '{"type": "start"'),
    *(
        "[" * 20_000,
        '{"a":' * 20_000,
        '{"type": "' + "x" * 100_000 + '"}',
        "\u0000",
        "NaN",
        "1e999",
    ),
    *('{"type": "start", "type": "stop"}', '{"type": "\\ud800"}', "9" * 5000, '{"type": "START"}'),
)
VALUES: tuple[object, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1,
        2**31,
        2**64,
        10**400,
        1.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        "\u0000",
    ),
    *(
        "\ud800",
        [],
        {},
        [[]],
        {"a": {}},
        "en-US",
        "fast",
        "pcm_s16le",
        "opus",
        8000,
        48000,
        "A" * 9000,
    ),
)
LIVE_FIELDS = (
    *("profile", "language", "encoding", "sample_rate", "channels", "partials", "session", "after"),
    *("type", "extra", ""),
)
SESSION_FIELDS = (
    *(
        "audio",
        "input",
        "format",
        "type",
        "rate",
        "transcription",
        "model",
        "language",
        "languages",
    ),
    *("prompt", "turn_detection", "threshold", "silence_duration_ms", "include", "extra"),
)
EVENTS = (
    *("session.update", "input_audio_buffer.append", "input_audio_buffer.commit"),
    *("input_audio_buffer.clear", "response.create", "conversation.item.create", "x", ""),
)


def frame_trial(rng: Random, target: Target) -> Made:
    """One conversation, and the end of it."""
    path = rng.choice((LIVE, LIVE, REALTIME))
    what, make = rng.choice(FRAMES)
    messages = make(rng, path)
    # In the middle of a frame nobody can say goodbye.
    ending, due = rng.choice(LEFT_OPEN if make is _damaged_frames else ENDINGS)
    hello = handshake(target, path, rng.randbytes(16), **_extension(what))
    sends = (Send(hello, answered=True), *(Send(message) for message in messages), Send(ending))
    return what, path, sends, due


def text(value: object) -> bytes:
    """A JSON message."""
    return frame(TEXT, json.dumps(value).encode("utf-8", "surrogatepass"))


def audio(content: bytes, path: str) -> bytes:
    """Audio as that WebSocket takes it."""
    if path == LIVE:
        return frame(BINARY, content)
    said = base64.b64encode(content).decode()
    return text({"type": "input_audio_buffer.append", "audio": said})


def _extension(what: str) -> dict[str, str]:
    offer = "permessage-deflate; client_max_window_bits"
    return {"Sec_WebSocket_Extensions": offer} if what == COMPRESSED_BOMB else {}


def _start(path: str) -> bytes:
    if path == LIVE:
        return text({"type": "start"})
    form = {"type": "audio/pcm", "rate": 24000}
    session = {"type": "transcription", "audio": {"input": {"format": form}}}
    return text({"type": "session.update", "session": session})


def _sound(rng: Random) -> bytes:
    size = rng.choice((0, 1, 3, 640, 641, 6400, 32_000, 200_000))
    return rng.choice((bytes(size), rng.randbytes(size), b"\xff\x7f\x01\x80" * (size // 4)))


def _wrong_start(rng: Random, path: str) -> list[bytes]:
    if path == LIVE:
        names = rng.sample(LIVE_FIELDS, rng.choice((1, 2, 5)))
        first: dict[str, object] = {"type": "start"} | {name: rng.choice(VALUES) for name in names}
    else:
        first = {"type": "session.update", "session": _session(rng, depth=4)}
    return [text(first), audio(_sound(rng), path)]


def _session(rng: Random, depth: int) -> object:
    if not depth:
        return rng.choice(VALUES)
    names = rng.sample(SESSION_FIELDS, rng.choice((1, 3)))
    return {name: _session(rng, rng.randrange(depth)) for name in names}


def _wrong_order(rng: Random, path: str) -> list[bytes]:
    if path == LIVE:
        known: tuple[bytes, ...] = (
            text({"type": "stop"}), text({"type": "flush"}), text({"type": "ack", "seq": 9**15}),
            text({"type": "ack"}),
        )  # fmt: skip
    else:
        known = tuple(text({"type": kind}) for kind in EVENTS)
    choices = (*known, _start(path), audio(_sound(rng), path))
    return [rng.choice(choices) for _ in range(rng.choice((1, 3, 10, 60)))]


def _junk(rng: Random, path: str) -> list[bytes]:
    first = [_start(path)] if rng.random() < 0.5 else []
    return [*first, *(frame(TEXT, rng.choice(JUNK).encode()) for _ in range(rng.choice((1, 4))))]


def _odd_audio(rng: Random, path: str) -> list[bytes]:
    if path == LIVE and rng.random() < 0.4:
        begin = text({"type": "start", "encoding": "opus"})
        return [begin, *(frame(BINARY, rng.randbytes(rng.choice((0, 1, 60)))) for _ in range(30))]
    if path == REALTIME and rng.random() < 0.4:
        odd = rng.choice(("", "=", "@@@@", "A", "AAA", "A" * 999_999, None, 1, ["AAAA"], {"a": 1}))
        return [_start(path), text({"type": "input_audio_buffer.append", "audio": odd})]
    return [_start(path), *(audio(_sound(rng), path) for _ in range(rng.choice((1, 5, 20))))]


def _oversized(rng: Random, path: str) -> list[bytes]:
    size = rng.choice((MIB + 1, 2 * MIB, 4 * MIB))
    kind = TEXT if path == REALTIME or rng.random() < 0.5 else BINARY
    first = [_start(path)] if rng.random() < 0.7 else []
    whole = b" " * size if kind == TEXT else bytes(size)
    return [*first, rng.choice((frame(kind, whole), pieces(kind, whole, rng)))]


def _fragments(rng: Random, path: str) -> list[bytes]:
    start = json.dumps({"type": "start"}).encode()
    return [pieces(TEXT, start, rng), pieces(BINARY, bytes(6400), rng), frame(0x9, b"x" * 125)]


def _no_frames(rng: Random, path: str) -> list[bytes]:
    """What a WebSocket library has to refuse."""
    return [
        _start(path),
        rng.choice(
            (frame(TEXT, b"{}", mask=None), frame(rng.choice((3, 7, 11, 15)), b"x"), frame(0, b"x"),
             frame(TEXT, b"{}", flags=FINAL | rng.choice((0x10, 0x20, 0x40))), frame(9, bytes(126)),
             frame(9, b"x", flags=0), frame(TEXT, b"\xff\xfe\xc0"), frame(BINARY,
                                                                          b"", declared=2**63),
             frame(BINARY, bytes(10), declared=2**40), frame(8, b"\x03"), close(rng.choice((0, 999,
             1004, 1005, 1006, 1015, 5000, 65535))), close(1000, b"\xff" * 20),
             frame(TEXT, b"a", flags=0) + frame(TEXT, b"b"), b"GET / HTTP/1.1\r\n\r\n")
        ),
    ]  # fmt: skip


def _pings(rng: Random, path: str) -> list[bytes]:
    return [_start(path), frame(rng.choice((9, 10)), b"p" * rng.choice((0, 125))) * 5000]


def _empty_messages(rng: Random, path: str) -> list[bytes]:
    return [_start(path), frame(rng.choice((TEXT, BINARY)), b"") * rng.choice((1, 5000))]


def _bomb(rng: Random, path: str) -> list[bytes]:
    """A compressed message of kilobytes that unpacks to megabytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(b" " * (rng.choice((1, 8)) * MIB)) + packer.flush(zlib.Z_SYNC_FLUSH)
    return [_start(path), frame(TEXT, packed[:-4], flags=FINAL | COMPRESSED)]


def _damaged_frames(rng: Random, path: str) -> list[bytes]:
    whole = _start(path) + audio(bytes(1000), path) + close()
    return [rng.choice((damaged(whole, rng)[0], _start(path) + rng.randbytes(500)))]


COMPRESSED_BOMB = "a compressed message that unpacks to much"
FRAMES: tuple[tuple[str, Callable[[Random, str], list[bytes]]], ...] = (
    ("a start that means nothing", _wrong_start),
    ("messages in any order", _wrong_order),
    ("messages that are no JSON", _junk),
    ("odd audio", _odd_audio),
    ("a message too large", _oversized),
    ("fragments", _fragments),
    ("no frames", _no_frames),
    ("pings", _pings),
    ("empty messages", _empty_messages),
    (COMPRESSED_BOMB, _bomb),
    ("damaged frames", _damaged_frames),
)
# A conversation ends with a close frame, because the line breaks, or because the client is gone.
LEFT_OPEN = ((b"", Due.END), (b"", Due.NOTHING))
ENDINGS = ((close(), Due.SOCKET), (close(None), Due.SOCKET), *LEFT_OPEN)
