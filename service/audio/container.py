"""What a file's own header says about its length, held against how many bytes there are.

The decoding libraries read what is left of a truncated file and say nothing, so that half a
recording would come back as if it were all of it. This finds the cut where the container tells:

- wav, aiff: the declared size of the samples
- mp4, m4a: the sizes of the boxes            - webm, matroska: the size of the segment
- ogg, opus: a last page that is incomplete

Flac, and an mp3 with a Xing or Info header, declare their number of samples, and `sndfile` compares
it with what came out. Not detectable:
an ogg stream cut exactly between two pages, an mp3 without such a header, raw AAC cut between two
frames, and anything recorded live whose header says "length unknown"; those are read to their end.
"""

from __future__ import annotations

import struct
from typing import Protocol

from service.errors import InvalidAudio

_UNKNOWN_RIFF_SIZE = 0x7FFF_F000  # what live recorders write: sox this, ffmpeg 0xFFFFFFFF
_OGG_TAIL_BYTES = 2 * 65_307  # a page is at most 65,307 bytes
_MP3_SEARCH_BYTES = 4096


class Seekable(Protocol):
    """A binary file that can be read from any place. No name: content tells what it is."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...


class Nameless:
    """A file without its name and type, which both libraries would otherwise believe."""

    def __init__(self, source: Seekable) -> None:
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        return self._source.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """A place before the start is -1, C's answer: a corrupt header asks for such places."""
        try:
            return self._source.seek(offset, whence)
        except (OSError, ValueError):
            return -1

    def tell(self) -> int:
        return self._source.tell()


def check_complete(file: Seekable) -> None:
    """Raises InvalidAudio if the file is empty, or shorter than its own header says."""
    size = file.seek(0, 2)
    if size == 0:
        raise InvalidAudio("The audio file is empty.")
    missing = _missing_bytes(file, size)
    if missing > 0:
        raise InvalidAudio(
            f"The audio file is truncated: its header promises at least {missing} more bytes. "
            "Upload the whole file."
        )


def _missing_bytes(file: Seekable, size: int) -> int:
    head = _read_at(file, 0, 12)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:] == b"WAVE":
        return _riff_end(file, size, head) - size
    if head[:4] == b"FORM":
        return int.from_bytes(head[4:8], "big") + 8 - size
    if head[:4] == b"OggS":
        return _ogg_end(file, size) - size
    if head[:4] == b"\x1aE\xdf\xa3":
        return _matroska_end(file) - size
    if head[4:8] == b"ftyp":
        return _mp4_end(file, size) - size
    return 0


def _riff_end(file: Seekable, size: int, head: bytes) -> int:
    """Where the samples of a wav end by its header; 0 if it does not say."""
    order = ">" if head[:4] == b"RIFX" else "<"
    at, long_size = 12, 0
    while len(chunk := _read_at(file, at, 24)) >= 8:
        name, length = struct.unpack(order + "4sI", chunk[:8])
        if name == b"ds64" and len(chunk) == 24:
            long_size = struct.unpack("<Q", chunk[16:24])[0]
        if name == b"data":
            if head[:4] == b"RF64" and length == 0xFFFF_FFFF:
                return at + 8 + long_size
            return 0 if length >= _UNKNOWN_RIFF_SIZE else at + 8 + length
        at += 8 + length + length % 2
    raise InvalidAudio("The wav file ends before its first sample.")


def _ogg_end(file: Seekable, size: int) -> int:
    """Where the last page that begins in the file ends."""
    start = max(0, size - _OGG_TAIL_BYTES)
    tail = _read_at(file, start, _OGG_TAIL_BYTES)
    at = tail.rfind(b"OggS\0")
    if at < 0 or len(tail) < at + 27:
        return size + 1
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    if len(segments) < tail[at + 26]:
        return size + 1
    return start + at + 27 + len(segments) + sum(segments)


def _matroska_end(file: Seekable) -> int:
    """Where the segment ends; 0 if its size is unknown, as in live recordings."""
    header_size, width = _ebml_size(file, 4)
    segment = 4 + width + header_size
    if _read_at(file, segment, 4) != b"\x18\x53\x80\x67":
        return 0
    length, width = _ebml_size(file, segment + 4)
    unknown = length == (1 << 7 * width) - 1
    return 0 if unknown else segment + 4 + width + length


def _ebml_size(file: Seekable, at: int) -> tuple[int, int]:
    """An EBML variable-length size, and its width in bytes: leading zero bits count the bytes."""
    field = _read_at(file, at, 8)
    if not field or field[0] == 0:
        raise InvalidAudio("The webm file is corrupt: a size in its header cannot be read.")
    width = 9 - field[0].bit_length()
    return int.from_bytes(field[:width], "big") & ((1 << 7 * width) - 1), width


def _mp4_end(file: Seekable, size: int) -> int:
    """Where the last top-level box ends. A size of 0 means "to the end of the file"."""
    at = 0
    while at < size and len(box := _read_at(file, at, 16)) >= 8:
        length = int.from_bytes(box[:4], "big")
        if length == 1:
            length = int.from_bytes(box[8:16], "big")
        if length < 8:
            return size
        at += length
    return at


def has_mp3_frame_count(file: Seekable) -> bool:
    """Whether an mp3 says how many frames it has; without that, its length is only a guess."""
    head = _read_at(file, 0, 10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
    near = _read_at(file, start, _MP3_SEARCH_BYTES)
    at = max(near.find(b"Xing"), near.find(b"Info"))
    return at >= 0 and len(near) >= at + 12 and bool(near[at + 7] & 1)


def _read_at(file: Seekable, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
