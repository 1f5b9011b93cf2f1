"""The pages of an Ogg file: where one recording ends and the next begins, and which are damaged.

RFC 3533: a page has a mark, flags, the time of its end, and a checksum of all its bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from service.audio.container import WINDOW_BYTES, Piece, Seekable, read_at
from service.errors import InvalidAudio

_MARK = b"OggS\0"
_HEADER_BYTES = 27
_MAX_PAGE_BYTES = 65_307
_MAX_USELESS = 10_000  # pages with nothing in them, and marks that begin none: no such file is one
_FIRST, _LAST = 2, 4  # flags: of a recording's first page, and of its last
_BITS_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Link:
    """One recording of a file: its header pages, and its pages in runs without damage.

    The first run has the header pages in it. `cut`: its last page is missing.
    """

    headers: tuple[Piece, ...]
    runs: tuple[tuple[Piece, ...], ...]
    cut: bool


@dataclass(frozen=True, slots=True)
class _Page:
    """Where a page is. `is_header`: it ends at sample 0, or nothing ends on it."""

    start: int
    end: int
    flags: int
    serial: bytes
    is_header: bool


def links(file: Seekable) -> list[Link]:
    """The recordings of an Ogg file, in order.

    Raises InvalidAudio for what was made to be looked through for long. None are found where
    sound and pictures take turns.
    """
    found: list[list[_Page]] = []
    for page in _pages(file):
        if page.flags & _FIRST:
            if found and found[-1][-1].flags & _FIRST:
                return []
            found.append([page])
        elif found and page.serial == found[-1][0].serial:
            found[-1].append(page)
    return [_link(file, pages) for pages in found]


def _link(file: Seekable, pages: list[_Page]) -> Link:
    num_headers = next((n for n, page in enumerate(pages) if not page.is_header), len(pages))
    runs: list[list[_Page]] = []
    for page in pages:
        if not runs or page.start != runs[-1][-1].end:
            runs.append([])
        runs[-1].append(page)
    return Link(
        tuple(range(page.start, page.end) for page in pages[:num_headers]),
        tuple(_pieces(file, run, number) for number, run in enumerate(runs)),
        not pages[-1].flags & _LAST,
    )


def _pieces(file: Seekable, run: list[_Page], number: int) -> tuple[Piece, ...]:
    whole = range(run[0].start, run[-1].end)
    if number == 0 or not run[0].flags & _LAST:
        return (whole,)
    # Libav does not work out when a recording's last page begins if it sees none before it.
    page = bytearray(read_at(file, run[0].start, run[0].end - run[0].start))
    page[5] &= ~_LAST
    page[22:26] = _checksum(bytes(page))
    return (bytes(page),)


def _pages(file: Seekable) -> Iterator[_Page]:
    """Every page that is whole and not damaged."""
    at, base, data, useless = 0, 0, read_at(file, 0, WINDOW_BYTES), 0
    while useless < _MAX_USELESS:
        if at - base > len(data) - _MAX_PAGE_BYTES and len(data) == WINDOW_BYTES:
            base, data = at, read_at(file, at, WINDOW_BYTES)
        place = data.find(_MARK, at - base)
        if place < 0:
            if len(data) < WINDOW_BYTES:
                return
            at = base + len(data) - len(_MARK)
            continue
        at = base + place
        page = _page(data, place, at)
        if page is not None:
            useless += page.end - page.start == _HEADER_BYTES
            yield page
            at = page.end
        elif at - base > len(data) - _MAX_PAGE_BYTES and len(data) == WINDOW_BYTES:
            continue  # not all of it is in the window
        else:
            useless += 1
            at += 1
    raise InvalidAudio("The Ogg file is full of pages with nothing in them.")


def _page(data: bytes, place: int, at: int) -> _Page | None:
    """The page at a place of `data`, if all of it is there and its checksum is right."""
    head = data[place : place + _HEADER_BYTES + 255]
    if len(head) < _HEADER_BYTES:
        return None
    end = _HEADER_BYTES + head[26] + sum(head[_HEADER_BYTES : _HEADER_BYTES + head[26]])
    page = data[place : place + end]
    if len(page) < end or _checksum(page) != page[22:26]:
        return None
    is_header = page[6:14] in (bytes(8), b"\xff" * 8)
    return _Page(at, at + end, page[5], page[14:18], is_header)


def _checksum(page: bytes) -> bytes:
    """Ogg's CRC-32 has zlib's polynomial with the bits the other way, and starts from 0."""
    turned = (page[:22] + bytes(4) + page[26:]).translate(_BITS_TURNED)
    crc = zlib.crc32(turned, 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{crc:032b}"[::-1], 2).to_bytes(4, "little")
