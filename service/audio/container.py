"""A recording's bytes as a library sees them: without a name, and in pieces where that helps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

WINDOW_BYTES = 1 << 20
_MAX_PLACES = 10_000


class Seekable(Protocol):
    """A binary file that can be read from any place. No name: content tells what it is."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class Nameless:
    """A file without its name and type, which libav would otherwise believe."""

    def __init__(self, source: Seekable) -> None:
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        return self._source.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """A place before the start is -1, C's answer: a corrupt header asks for such places."""
        try:
            return self._source.seek(offset, whence)
        except (OSError, OverflowError, ValueError):
            return -1

    def tell(self) -> int:
        return self._source.tell()


Piece = bytes | range  # bytes that are put in, or those of the file from one place to another


class Pieces:
    """Pieces of a file, one after the other, as a file of their own."""

    def __init__(self, file: Seekable, pieces: Sequence[Piece]) -> None:
        self._file = file
        self._pieces = [piece for piece in pieces if len(piece)]
        self._starts = [0, *accumulate(len(piece) for piece in self._pieces)]
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        end = self._starts[-1]
        wanted = max(0, end - self._at) if size < 0 else min(size, max(0, end - self._at))
        parts: list[bytes] = []
        while wanted:
            number = bisect_right(self._starts, self._at) - 1
            piece, offset = self._pieces[number], self._at - self._starts[number]
            length = min(wanted, len(piece) - offset)
            if isinstance(piece, bytes):
                part = piece[offset : offset + length]
            else:
                part = read_at(self._file, piece.start + offset, length)
            if not part:
                break
            parts.append(part)
            self._at += len(part)
            wanted -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        at = offset + (0, self._at, self._starts[-1])[whence]
        if at < 0:
            return -1
        self._at = at
        return at

    def tell(self) -> int:
        return self._at


def read_at(file: Seekable, offset: int, size: int) -> bytes:
    """`size` bytes, fewer at the file's end, none from a place that is not in it."""
    return file.read(size) if file.seek(offset) == offset else b""


def size_of(file: Seekable) -> int:
    return file.seek(0, 2)


def windows(file: Seekable, at: int, overlap: int) -> Iterator[tuple[int, bytes]]:
    """The file from `at` on in windows of 1 MB, each with its place, and with `overlap` bytes of
    the next, so that what lies across a border is found."""
    while len(data := read_at(file, at, WINDOW_BYTES + overlap)) > 0:
        yield at, data
        if len(data) <= WINDOW_BYTES:
            return
        at += WINDOW_BYTES


def places_of(file: Seekable, *patterns: bytes) -> list[int]:
    """Where any of `patterns` begins, in order; not after some ten thousand places."""
    found: set[int] = set()
    for start, data in windows(file, 0, max(map(len, patterns)) - 1):
        for pattern in patterns:
            at = data.find(pattern)
            while at >= 0:
                found.add(start + at)
                at = data.find(pattern, at + 1) if len(found) < _MAX_PLACES else -1
        if len(found) >= _MAX_PLACES:
            break
    return sorted(found)
