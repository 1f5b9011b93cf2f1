"""WebSocket frames by hand: RFC 6455's, and those that break it."""

from __future__ import annotations

import base64
import struct
from random import Random

from loadtest.hostile.trials import Target

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FINAL, COMPRESSED = 0x80, 0x40


def handshake(target: Target, path: str, key: bytes, **more: str) -> bytes:
    """The head that asks for a WebSocket. `key`: 16 bytes, any."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(key).decode(),
    }
    return target.head("GET", path, headers | {k.replace("_", "-"): v for k, v in more.items()})


def frame(
    opcode: int,
    payload: bytes,
    mask: bytes | None = b"\x37\xfa\x21\x3d",
    flags: int = FINAL,
    declared: int | None = None,
) -> bytes:
    """One frame. `declared`: a length that is not the payload's; without a mask it is against
    the protocol."""
    length = len(payload) if declared is None else declared
    masked = 0x80 if mask else 0
    head = bytes([flags | opcode])
    if length < 126:
        head += bytes([masked | length])
    elif length < 2**16:
        head += bytes([masked | 126]) + struct.pack(">H", length)
    else:
        head += bytes([masked | 127]) + struct.pack(">Q", length)
    return head + (mask + _masked(payload, mask) if mask else payload)


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    """A close frame; None for one without a code."""
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


def pieces(opcode: int, payload: bytes, rng: Random) -> bytes:
    """A message in fragments of any size."""
    cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.choice((1, 3, 40))))
    parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    ends = [0] * (len(parts) - 1) + [FINAL]
    kinds = [opcode] + [CONTINUATION] * (len(parts) - 1)
    return b"".join(frame(k, p, flags=f) for k, p, f in zip(kinds, parts, ends, strict=True))


def close_code(received: bytes) -> int | None:
    """The code of the close frame in what a server sent; 1005 for one without, None for none."""
    at = 0
    while at + 2 <= len(received):
        opcode, length = received[at] & 0x0F, received[at + 1] & 0x7F
        at += 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length = int.from_bytes(received[at : at + width], "big")
            at += width
        if opcode == CLOSE and at + length <= len(received):
            return int.from_bytes(received[at : at + 2], "big") if length >= 2 else 1005
        at += length
    return None


def _masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
