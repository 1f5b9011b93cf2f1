"""The sizes that wav, RF64, w64, aiff, caf and au files give for their samples, held against what
is there; and the boxes of an mp4.

A writer that streams, or lost power, leaves a size that means nothing, and libav believes some of
them. No promise is a size of 0 or -1, 2 or 4 GB to within 64 KB, a whole number of millions, or a
quarter of a GB and more of which not a tenth is there; nor one that ends where no chunk begins.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from service.audio.container import Piece, Seekable, read_at
from service.errors import InvalidAudio

_MAX_CHUNKS = 1000  # that are looked at: there are files with millions of empty ones
_MAX_BOXES, _MIN_BOX_BYTES = 20_000, 32  # so many of an mp4 may be smaller on average
_TOO_MANY = f"The first {_MAX_CHUNKS:,} chunks of the audio file hold no sound."
_GB, _SLACK = 1 << 30, 1 << 16
_W64 = b"riff.\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0"


@dataclass(frozen=True, slots=True)
class Sound:
    """Where the samples of a file begin, how many bytes they are by its header, and where that
    says so: `width` bytes at `field`, in which `extra` bytes of no samples are counted."""

    begin: int
    declared: int
    field: int
    width: int
    big: bool
    extra: int = 0

    @property
    def end(self) -> int:
        return self.begin + self.declared

    def is_promise(self, size: int) -> bool:
        """Whether a file of `size` bytes was meant to have what its header declares."""
        there = size - self.begin
        return not (
            self.declared <= 0
            or self.declared >= 1 << 62
            or any(abs(self.declared - limit * _GB) <= _SLACK for limit in (2, 4))
            or self.declared % 1_000_000 == 0
            or (self.declared > _GB // 4 and self.declared > 10 * there)
        )

    def corrected(self, start: int, size: int) -> tuple[Piece, ...]:
        """The file from `start` on, all of it samples, with a header that says so."""
        length = min(size - self.begin + self.extra, (1 << 8 * self.width) - 1)
        field = length.to_bytes(self.width, "big" if self.big else "little")
        return range(start, self.field), field, range(self.field + self.width, size)


def whole_aiff(file: Seekable, pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """An aiff whose size, which libav believes, is that of `pieces`."""
    first, size = pieces[0], sum(map(len, pieces)) - 8
    if not isinstance(first, range) or read_at(file, first.start, 4) != b"FORM":
        return pieces
    head = range(first.start, first.start + 4)
    return (
        head,
        min(size, 0xFFFF_FFFF).to_bytes(4, "big"),
        range(first.start + 8, first.stop),
        *pieces[1:],
    )


def sound_of(file: Seekable, start: int) -> Sound | None:
    """None where the file at `start` is none of these kinds, or ends before its samples.

    Raises InvalidAudio where they are not among the first thousand chunks.
    """
    head = read_at(file, start, 16)
    if head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE":
        return _in_chunks(file, start + 12, b"data", big=head[:4] == b"RIFX")
    if head[:4] in (b"RF64", b"BW64"):
        return _in_rf64(file, start)
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        return _in_chunks(file, start + 12, b"SSND", big=True, extra=8)
    if head[:4] == b"caff":
        return _in_chunks(file, start + 8, b"data", big=True, width=8, extra=4)
    if head[:4] == b".snd":
        begin, declared = struct.unpack(">II", head[4:12])
        return Sound(start + begin, _signed(declared, 4), start + 8, 4, big=True)
    return _in_w64(file, start) if head == _W64 else None


def is_wav(head: bytes) -> bool:
    return head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE"


def is_riff(head: bytes) -> bool:
    """Whether it is one of these or Sony's w64, by its first 16 bytes."""
    return is_wav(head) or head == _W64


def is_chunk(file: Seekable, at: int) -> bool:
    """Whether a chunk begins there, or after a byte of padding; or nothing of any weight."""
    for place in (at, at + 1):
        head = read_at(file, place, 8)
        if len(head) < 8 or (head[:4].isascii() and head[:4].decode().isprintable()):
            return True
    return False


def boxes(file: Seekable, size: int, at: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each box of an mp4 on its upper level, from `at` on. The last may end
    too late.

    Raises InvalidAudio for tens of thousands with nothing in them.
    """
    number, begin = 0, at
    while number < _MAX_BOXES or at - begin >= number * _MIN_BOX_BYTES:
        number += 1
        head = read_at(file, at, 16)
        if len(head) < 8 or not head[4:8].isalnum():
            return
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size - at
        if length < 8:
            return
        yield head[4:8], at, at + length
        at += length
    raise InvalidAudio(f"The mp4 file has more than {_MAX_BOXES:,} boxes with nothing in them.")


def _in_chunks(
    file: Seekable, at: int, name: bytes, *, big: bool, width: int = 4, extra: int = 0
) -> Sound | None:
    for _ in range(_MAX_CHUNKS):
        head = read_at(file, at, 4 + width)
        if len(head) < 4 + width:
            return None
        length = int.from_bytes(head[4:], "big" if big else "little")
        begin = at + 4 + width
        if head[:4] == name:
            declared = _signed(length, width)
            return Sound(
                begin + extra, declared - extra * (declared > 0), at + 4, width, big, extra
            )
        at = begin + length + (length % 2 if width == 4 else 0)
    raise InvalidAudio(_TOO_MANY)


def _in_rf64(file: Seekable, start: int) -> Sound | None:
    sound = _in_chunks(file, start + 12, b"data", big=False)
    if sound is None or sound.declared != -1 or read_at(file, start + 12, 4) != b"ds64":
        return sound
    field = start + 28  # after ds64, its size, and the size of the file
    declared = int.from_bytes(read_at(file, field, 8), "little")
    return Sound(sound.begin, _signed(declared, 8), field, 8, big=False)


def _in_w64(file: Seekable, start: int) -> Sound | None:
    at = start + 40
    for _ in range(_MAX_CHUNKS):
        head = read_at(file, at, 24)
        if len(head) < 24:
            return None
        length = _signed(int.from_bytes(head[16:], "little"), 8)
        if head[:4] == b"data":
            return Sound(at + 24, length - 24, at + 16, 8, big=False, extra=24)
        if length < 24:
            return None
        at += length + -length % 8
    raise InvalidAudio(_TOO_MANY)


def _signed(value: int, width: int) -> int:
    """All bits set is -1: the size that is not known."""
    return -1 if value == (1 << 8 * width) - 1 else value
