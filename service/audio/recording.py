"""The bytes of a recording to blocks of samples on its clock, whatever is wrong with them.

Reading goes on past damage, through recordings that were joined to one file, and whatever their
headers count. What could not be read is silence and a notice, and so is what a header promises
and the file does not keep (`chunks` says which promises mean nothing).
"""

from __future__ import annotations

from collections.abc import Iterator

from service.audio.clock import Clock
from service.audio.container import Nameless, Pieces, Seekable, size_of
from service.audio.frames import runs
from service.audio.libav import libav_blocks, open_libav, silence
from service.audio.parts import Part, kind_of, parts
from service.errors import InvalidAudio
from service.types import Notice, Samples


def recording_blocks(source: Seekable, losses: list[Notice]) -> Iterator[tuple[Samples, int]]:
    """Blocks (n, channels), each with its sample rate; what could not be read is silence.

    When they end, a notice for each loss is in `losses`. Raises InvalidAudio for what is no
    audio, or has none in it that can be decoded.
    """
    file = Nameless(source)
    if size_of(file) == 0:
        raise InvalidAudio("The audio file is empty.")
    clock = Clock()
    shape: tuple[int, int] | None = None
    failure: InvalidAudio | None = None
    for part in _parts(file):
        if part.lost_s and shape is not None:
            clock.lost(part.lost_s)
            yield from silence(part.lost_s, *shape)
            clock.played(part.lost_s)
        elif part.goes_on:
            clock.damaged()
        try:
            for block, rate in _part_blocks(file, part, clock):
                shape = block.shape[1], rate
                yield block, rate
        except InvalidAudio as error:
            failure = failure or error
            clock.damaged()
    losses.extend(clock.notices())
    if shape is None and (failure or losses):
        raise failure or InvalidAudio("Nothing in the audio file can be decoded.")


def _parts(file: Seekable) -> list[Part]:
    """Raises InvalidAudio where neither libav nor the file's own framing says what it is."""
    kind = kind_of(file)
    if kind is None:
        try:
            with open_libav(file) as container:
                kind = container.format.name
        except InvalidAudio:
            if not runs(file):
                raise
            kind = "mp3"
    return parts(file, kind)


def _part_blocks(file: Seekable, part: Part, clock: Clock) -> Iterator[tuple[Samples, int]]:
    pieces = Pieces(file, part.pieces)
    with open_libav(pieces) as container:
        yield from libav_blocks(container, pieces, part, clock)
