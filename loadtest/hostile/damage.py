"""What becomes of bytes on a bad disk, a bad line, or in bad hands."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

EXTREMES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE)
HEAD_BYTES = 256  # most lies are told here
MOST_COPIES = 20


def damaged(content: bytes, rng: Random) -> tuple[bytes, str]:
    """One to three kinds of damage, and their names."""
    names = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        name, change = rng.choice(DAMAGE)
        content = change(content, rng) or b"\0"
        names.append(name)
    return content, ", ".join(names)


def _bits(content: bytes, rng: Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _head_bits(content: bytes, rng: Random) -> bytes:
    head = _bits(content[:HEAD_BYTES], rng)
    return head + content[HEAD_BYTES:]


def _run(content: bytes, rng: Random) -> bytes:
    start, end = _stretch(content, rng)
    filler = rng.choice((b"\0", b"\xff", b""))
    new = filler * (end - start) if filler else rng.randbytes(end - start)
    return content[:start] + new + content[end:]


def _number(content: bytes, rng: Random) -> bytes:
    """A length, a count or an offset that lies."""
    width = rng.choice((2, 4, 4, 4, 8))
    value = rng.choice((*EXTREMES, rng.getrandbits(8 * width))) % (1 << 8 * width)
    at = rng.randrange(min(len(content), rng.choice((HEAD_BYTES, len(content)))))
    new = value.to_bytes(width, rng.choice(("little", "big")))
    return content[:at] + new + content[at + width :]


def _cut_end(content: bytes, rng: Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _cut_start(content: bytes, rng: Random) -> bytes:
    return content[rng.randrange(len(content)) :]


def _removed(content: bytes, rng: Random) -> bytes:
    start, end = _stretch(content, rng)
    return content[:start] + content[end:]


def _inserted(content: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.randbytes(rng.choice((1, 3, 100, 5000))) + content[at:]


def _doubled(content: bytes, rng: Random) -> bytes:
    start, end = _stretch(content, rng)
    return content[:end] + content[start:]


def _swapped(content: bytes, rng: Random) -> bytes:
    a, b, c = sorted(rng.randrange(len(content) + 1) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def _joined(content: bytes, rng: Random) -> bytes:
    return content * rng.choice((2, 3, MOST_COPIES if len(content) < 50_000 else 2))


def _surrounded(content: bytes, rng: Random) -> bytes:
    junk = rng.choice((bytes(1000), rng.randbytes(1000), b"ID3\4\0\0\x7f\x7f\x7f\x7f", b"\r\n"))
    return junk + content if rng.random() < 0.5 else content + junk


def _reversed(content: bytes, rng: Random) -> bytes:
    start, end = _stretch(content, rng)
    return content[:start] + content[start:end][::-1] + content[end:]


def _stretch(content: bytes, rng: Random) -> tuple[int, int]:
    start = rng.randrange(len(content))
    return start, min(len(content), start + rng.choice((1, 4, 16, 200, 2000, len(content) // 4)))


DAMAGE: tuple[tuple[str, Callable[[bytes, Random], bytes]], ...] = (
    ("bits flipped", _bits),
    ("bits of the head flipped", _head_bits),
    ("a run overwritten", _run),
    ("a number that lies", _number),
    ("another number that lies", _number),
    ("the end cut off", _cut_end),
    ("the start cut off", _cut_start),
    ("a block removed", _removed),
    ("junk inserted", _inserted),
    ("a block doubled", _doubled),
    ("blocks swapped", _swapped),
    ("copies joined", _joined),
    ("junk around it", _surrounded),
    ("a block reversed", _reversed),
)
