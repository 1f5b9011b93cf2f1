"""Where the frames of an mp3 (or mp1, mp2) or of raw AAC (ADTS) are, and what is between them.

Each frame begins with its length. A run of frames is found by three that follow one another and
are alike; where a run ends before the file does, what follows is a tag, padding, the header of
another recording, or damage.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from service.audio.container import WINDOW_BYTES, Seekable, places_of, read_at, size_of, windows

_SYNC = re.compile(rb"\xff[\xe2-\xff][\x00-\xef]", re.DOTALL)
_ALIKE = 3  # frames that make a run
_MAX_FALSE = 100_000  # places that look like a frame and are none: more is no such file
_MAX_RUNS = 5000
_MAX_FRAME_BYTES = 8192
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"3DI")
_COUNT_MARKS = (b"Xing", b"Info")
_AFTER_SIDE_INFO = (13, 21, 36)  # where such a mark is in its frame, by channels and version

_KBPS = {  # ISO 11172-3 and 13818-3, table of bit rates: (version 1?, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_RATES = (44_100, 48_000, 32_000)
_ADTS_RATES = (
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025),
    *(8_000, 7_350),
)


@dataclass(frozen=True, slots=True)
class Run:
    """Frames without anything between them, from byte `start` to `end`, `seconds` long.

    `damage`: bytes before it that are neither frames nor a tag. `counted`: it begins with a
    header that counts the frames of its recording. `cut`: its last frame is not all there.
    """

    start: int
    end: int
    seconds: float
    damage: int = 0
    counted: bool = False
    cut: bool = False


def runs(file: Seekable) -> list[Run]:
    """All runs of frames of a file, in order; none if it is not made of frames."""
    size = size_of(file)
    marks = _counting_frames(file)
    found: list[Run] = []
    at = false = 0
    while len(found) < _MAX_RUNS:
        start, tried = _first_frame(file, at, size)
        false += tried
        if start is None or false > _MAX_FALSE:
            break
        later = next((mark for mark in marks if mark > start), size)
        end, seconds, cut = _end_of_run(file, start, later, size)
        damage = _damage(file, at, start) if found else 0
        found.append(Run(start, end, seconds, damage, start in marks, cut))
        at = end
    else:  # so damaged that libav may as well find its way by itself
        found[-1] = replace(found[-1], end=size, cut=False)
    return found


def _counting_frames(file: Seekable) -> list[int]:
    """Where frames are that hold no sound but a count of those that follow."""
    places = []
    for mark in places_of(file, *_COUNT_MARKS)[:_MAX_RUNS]:
        for offset in _AFTER_SIDE_INFO:
            if mark >= offset and _mpeg_frame(*read_at(file, mark - offset, 3)) is not None:
                places.append(mark - offset)
    return places


def _first_frame(file: Seekable, at: int, size: int) -> tuple[int | None, int]:
    """The first place from `at` on where a run begins; and how many did look like one."""
    tried = 0
    for start, data in windows(file, at, _ALIKE * _MAX_FRAME_BYTES):
        for match in _SYNC.finditer(data, 0, WINDOW_BYTES + 2):
            if _begins_run(data, match.start(), start + len(data) >= size):
                return start + match.start(), tried
            tried += 1
            if tried > _MAX_FALSE:
                return None, tried
    return None, tried


def _begins_run(data: bytes, at: int, is_end: bool) -> bool:
    kind = None
    for number in range(_ALIKE):
        frame = frame_at(data, at)
        if frame is None or (kind is not None and frame.kind != kind):
            # What is left of a file may be fewer.
            return is_end and number > 0 and len(data) - at < 4 and kind is not None
        kind = frame.kind
        at += frame.length
    return True


def _end_of_run(file: Seekable, start: int, later: int, size: int) -> tuple[int, float, bool]:
    """Where a run ends, its seconds, and whether its last frame lacks some of its bytes."""
    at, num_frames, kind = start, 0, None
    seconds = 0.0
    while at < later:
        data = read_at(file, at, WINDOW_BYTES + 8)
        offset, limit = 0, min(WINDOW_BYTES, later - at)
        while offset < limit:
            frame = frame_at(data, offset)
            if frame is None or (kind is not None and frame.kind != kind):
                return at + offset, num_frames * seconds, False
            kind, seconds = frame.kind, frame.seconds
            if at + offset + frame.length > size:
                return size, num_frames * seconds, True
            offset += frame.length
            num_frames += 1
        at += offset
    return at, num_frames * seconds, False


def _damage(file: Seekable, start: int, end: int) -> int:
    """How many bytes between two runs are damage: none where there is a tag, or only zeros.

    Zeros that end in the middle of a frame are no padding: they are in the place of sound.
    """
    at = start
    while at < end:
        data = read_at(file, at, min(end - at, WINDOW_BYTES))
        if rest := data.lstrip(b"\0"):
            at += len(data) - len(rest)
            return 0 if read_at(file, at, 16).startswith(_TAGS) else end - start
        at += len(data)
    return 0


@dataclass(frozen=True, slots=True)
class Frame:
    """What a frame's header says: its bytes, its seconds, and what is the same in all of a run."""

    length: int
    seconds: float
    kind: int


def frame_at(data: bytes, at: int) -> Frame | None:
    if at + 6 > len(data) or data[at] != 0xFF:
        return None
    second = data[at + 1]
    if second & 0xF6 == 0xF0:
        return _adts_frame(second, data[at + 2], int.from_bytes(data[at + 3 : at + 6], "big"))
    return _mpeg_frame(0xFF, second, data[at + 2])


@lru_cache(1 << 12)
def _mpeg_frame(first: int, second: int, third: int) -> Frame | None:
    version, layer = second >> 3 & 3, 4 - (second >> 1 & 3)
    bits, rate_index = third >> 4, third >> 2 & 3
    if first != 0xFF or second < 0xE0 or version == 1 or layer == 4 or bits in (0, 15):
        return None
    if rate_index == 3:
        return None
    full = version == 3
    rate = _MPEG_RATES[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == 1 else 1152 if layer == 2 or full else 576
    padding = third >> 1 & 1
    unit = 4 if layer == 1 else 1
    length = (samples // 8 // unit * _KBPS[full, layer][bits] * 1000 // rate + padding) * unit
    return Frame(length, samples / rate, second >> 1 << 2 | rate_index)


@lru_cache(1 << 14)
def _adts_frame(second: int, third: int, rest: int) -> Frame | None:
    rate_index, length = third >> 2 & 15, rest >> 5 & 0x1FFF
    if rate_index >= len(_ADTS_RATES) or length < 8:
        return None
    return Frame(length, 1024 / _ADTS_RATES[rate_index], 1 << 16 | second << 8 | third >> 2)
