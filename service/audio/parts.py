"""Files that are several recordings, or have holes, as parts that libav reads one by one.

Libav reads a file as the one recording that its first header tells of, and where that is wrong it
loses more than it must: a joined mp3 keeps its second header as sound, a damaged frame header
takes the next twenty frames with it, an Ogg page that is lost moves all times after it, and a
second recording with another number of channels is not read at all. Where the parts are shows in
their own framing, which is looked at for nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from service.audio.chunks import Sound, boxes, is_chunk, is_wav, sound_of, whole_aiff
from service.audio.container import Piece, Seekable, places_of, read_at, size_of
from service.audio.frames import Run, runs
from service.audio.ogg import Link, links
from service.errors import InvalidAudio

_MAX_PARTS = 5000  # each of them takes libav half a millisecond
MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"  # as libav calls them
# Whose duration is a count of samples, or else the time of the last of them, by the header.
_COUNTED = ("ape", "flac", MP4, MATROSKA, "nistsphere", "tta", "wv")


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of a file that libav reads by themselves.

    `goes_on`: on the clock of the part before. `lost_s`: seconds of sound lost before it.
    `counted`: its header's duration is a count, no estimate. `promised`: how many times of what
    is there its header declares. `cut`: it ends in the middle of a frame or page.
    """

    pieces: tuple[Piece, ...]
    goes_on: bool = False
    lost_s: float = 0.0
    counted: bool = False
    promised: float | None = None
    cut: bool = False


def kind_of(file: Seekable) -> str | None:
    """Libav's name for the kind of a file, where its first bytes alone tell; else None."""
    head = read_at(file, 0, 12)
    if head[4:8] == b"ftyp":
        return MP4
    if sound_of(file, 0) is not None:
        return "wav"
    return {b"OggS": "ogg", b"fLaC": "flac"}.get(head[:4])


def parts(file: Seekable, kind: str) -> list[Part]:
    """The parts of a file that libav takes for `kind`; one of all of it where it is whole.

    Raises InvalidAudio where they show that nothing of it can be read.
    """
    split = _SPLITTERS.get(kind)
    found = [] if split is None else split(file)
    if len(found) > _MAX_PARTS:
        raise InvalidAudio(f"The file is more than {_MAX_PARTS:,} recordings in one.")
    return found or [Part((range(size_of(file)),), counted=kind in _COUNTED)]


def _flac(file: Seekable) -> list[Part]:
    """Split where a stream begins: the mark, and the header of the block that has to follow."""
    starts = places_of(file, b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")
    ends = [*starts[1:], size_of(file)]
    return [Part((range(a, b),), counted=True) for a, b in zip(starts, ends, strict=False)]


def _mp4(file: Seekable) -> list[Part]:
    """Split where a file type is named again after an index: files that were joined."""
    size, starts, has_index, last = size_of(file), [0], False, 0
    fragments: list[int] = []
    for name, start, last in boxes(file, size):  # noqa: B007
        if name == b"ftyp" and has_index:
            starts.append(start)
            has_index, fragments = False, []
        has_index = has_index or name == b"moov"
        if name == b"moof":
            fragments.append(start)
    if not has_index and len(starts) == 1:
        raise InvalidAudio(
            "The mp4 file is not all there: its index (moov), which its writer puts last, is "
            "missing, and without it nothing can be read."
        )
    ends = [*starts[1:], size]
    found = [
        Part((range(a, b),), counted=True, cut=b == size and last > size)
        for a, b in zip(starts, ends, strict=True)
    ]
    if fragments and last != size:
        found[-1:] = _fragments(file, found[-1], starts[-1], fragments)
    return found


def _fragments(file: Seekable, whole: Part, start: int, reached: list[int]) -> list[Part]:
    """The last recording of a file, split at fragments that no box before them leads to: what is
    between is damaged.

    A free box in its place keeps all that follows where the fragments say that it is.
    """
    size, first, seen = size_of(file), reached[0], set(reached)
    places = [start]
    for mark in places_of(file, b"moof"):
        if mark - 4 < first or mark - 4 in seen or read_at(file, mark + 8, 4) != b"mfhd":
            continue
        places.append(mark - 4)
        for name, box, _ in boxes(file, size, mark - 4):
            if box in seen:
                break
            if name == b"moof":
                seen.add(box)
    if len(places) == 1:
        return [whole]
    head = range(start, first)
    found = [Part((range(start, places[1]),), counted=True)]
    for a, b in pairwise([*places[1:], size]):
        free = (a - first).to_bytes(4, "big") + b"free"
        found.append(Part((head, free, range(first + len(free), b)), goes_on=True))
    return found


def _sound(file: Seekable) -> list[Part]:
    size, at = size_of(file), 0
    found: list[Part] = []
    while len(found) <= _MAX_PARTS:
        sound = sound_of(file, at)
        if sound is None:
            break
        if not sound.is_promise(size) or (sound.end < size and not is_chunk(file, sound.end)):
            return [*found, Part(whole_aiff(file, sound.corrected(at, size)))]
        if sound.end > size:
            share = sound.declared / max(1, size - sound.begin)
            return [*found, Part(whole_aiff(file, (range(at, size),)), promised=share)]
        following = _next_sound(file, at, sound)
        if is_wav(read_at(file, at, 12)):
            # What comes after the samples is not for libav, which walks it chunk by chunk.
            found.append(Part((range(at, sound.end),)))
            if following is None:
                return found
        elif following is None:
            break
        else:
            found.append(Part(whole_aiff(file, (range(at, following),))))
        at = following
    return [*found, Part(whole_aiff(file, (range(at, size),)))]


def _next_sound(file: Seekable, start: int, sound: Sound) -> int | None:
    """Where another such file follows the one at `start`: after its samples, or by its own size."""
    head = read_at(file, start, 12)
    size = int.from_bytes(head[4:8], "little" if head[:4] == b"RIFF" else "big")
    aligned = sound.end + -sound.end % 8
    for place in (sound.end, sound.end + 1, aligned, start + 8 + size, start + 9 + size):
        if place > start and sound_of(file, place) is not None:
            return place
    return None


def _frames(file: Seekable) -> list[Part]:
    found = runs(file)
    return [_of_run(run, before) for run, before in zip(found, [None, *found], strict=False)]


def _of_run(run: Run, before: Run | None) -> Part:
    lost_s = 0.0
    if before is not None and run.damage:
        lost_s = run.damage * before.seconds / (before.end - before.start)
    return Part(
        (range(run.start, run.end),),
        goes_on=lost_s > 0,
        lost_s=lost_s,
        counted=run.counted,
        cut=run.cut,
    )


def _ogg(file: Seekable) -> list[Part]:
    return [part for link in links(file) for part in _of_link(link)]


def _of_link(link: Link) -> list[Part]:
    return [
        Part(
            pieces if number == 0 else (*link.headers, *pieces),
            goes_on=number > 0,
            cut=link.cut and number == len(link.runs) - 1,
        )
        for number, pieces in enumerate(link.runs)
    ]


_SPLITTERS = {
    **dict.fromkeys(("wav", "w64", "aiff", "caf", "au"), _sound),
    **dict.fromkeys(("mp3", "aac"), _frames),
    "flac": _flac,
    "ogg": _ogg,
    MP4: _mp4,
}
