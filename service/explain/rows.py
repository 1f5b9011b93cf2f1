"""A pane as rows on a page, like lines of a score: what goes where, without a pen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from service.explain.explanation import Pane, ShownWord
from service.explain.fates import DROPPED, owners_of
from service.types import Kept

ROW_FRAMES = 400  # at most, of the recording
LEAST_FRAMES = 200  # a row of fewer would be stretched: it takes padding
LEAST_PADDING = 100  # frames; less of it is drawn at the end of the last row
TICKS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
MOST_TICKS = 16
# Attention is drawn on a scale of powers of two around what the average frame receives.
LOW, HIGH = -2.0, 3.0

Levels = npt.NDArray[np.float64]
ALONE, MERGED, GONE = "kept", "merged", "dropped"


@dataclass(frozen=True, slots=True)
class Row:
    """The frames of a pane from `first` to before `last`. `padding`: none holds the recording."""

    first: int
    last: int
    padding: bool = False

    def __len__(self) -> int:
        return self.last - self.first


@dataclass(frozen=True, slots=True)
class Block:
    """Frames of a row, counted from its first, that share a fate: a state's, or a dropped run."""

    first: int
    last: int
    fate: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A time of the recording, and where in the row it is: 0 to 1."""

    at: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Placed:
    """A word in a row: where it begins and ends, 0 to 1, and in which lane, so that none covers
    another."""

    word: ShownWord
    at: float
    until: float
    lane: int


def is_wide(row: Row) -> bool:
    """Whether a frame of it is wide enough to be parted from the next."""
    return len(row) <= ROW_FRAMES + LEAST_PADDING


def rows_of(pane: Pane) -> list[Row]:
    """Equal rows of the recording, and one of all the padding behind it."""
    total = len(pane.kept.importance)
    sounding = min(max(pane.audio_frames, LEAST_FRAMES), total)
    pads = total - sounding >= LEAST_PADDING
    end = sounding if pads else total
    num = max(1, math.ceil(end / ROW_FRAMES))
    edges = [round(number * end / num) for number in range(num + 1)]
    rows = [Row(*pair) for pair in pairwise(edges)]
    return [*rows, Row(sounding, total, padding=True)] if pads else rows


def blocks_of(kept: Kept, row: Row) -> list[Block]:
    """What became of the row's frames, each in exactly one block, in time order."""
    owners = owners_of(kept)[row.first : row.last]
    edges = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(owners)]
    blocks = []
    for first, last in pairwise(edges):
        owner = owners[first]
        fate = GONE if owner == DROPPED else MERGED if kept.sizes[owner] > 1 else ALONE
        blocks.append(Block(first, last, fate))
    return blocks


def levels_of(kept: Kept, row: Row) -> Levels:
    """The attention that each frame of the row receives, 0 to 1 on the scale from `LOW` to `HIGH`
    powers of two of what the average frame of the window receives."""
    relative = kept.importance.astype(np.float64) / max(float(kept.importance.mean()), 1e-30)
    powers = np.log2(np.maximum(relative[row.first : row.last], 2.0**LOW))
    level: Levels = (np.clip(powers, LOW, HIGH) - LOW) / (HIGH - LOW)
    return level


def ticks_of(pane: Pane, row: Row) -> list[Tick]:
    """Round times of the recording in the row."""
    start, length = pane.start_s + row.first * pane.frame_s, len(row) * pane.frame_s
    step = next((step for step in TICKS_S if length / step <= MOST_TICKS), TICKS_S[-1])
    first = math.ceil(start / step - 1e-6)
    times = [number * step for number in range(first, math.floor((start + length) / step) + 1)]
    return [Tick((seconds - start) / length, seconds) for seconds in times]


def place(words: Sequence[ShownWord], pane: Pane, row: Row, chars: float) -> list[Placed]:
    """The words that begin in the row, in as few lanes as they fit; a row is `chars` letters wide.

    A word begins where its time does, or where its row ends if it would not fit before.
    """
    start, length = pane.start_s + row.first * pane.frame_s, len(row) * pane.frame_s
    rows = rows_of(pane)
    opens, closes = row == rows[0], row == rows[-1]
    free: list[float] = []  # where the last word of each lane ends
    placed = []
    for word in words:
        at, until = (word.start - start) / length, (word.end - start) / length
        if (at < 0 and not opens) or (at >= 1 and not closes):
            continue
        width = (len(word.text.strip()) + 1) / chars
        at = min(max(at, 0.0), max(0.0, 1 - width))
        lane = next((lane for lane, end in enumerate(free) if end <= at), len(free))
        free[lane : lane + 1] = [at + width]
        placed.append(Placed(word, at, min(max(until, at), 1.0), lane))
    return placed
