"""The graphics of a row as pixels, for what knows no style sheets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.explain.explanation import Pane
from service.explain.picture import LEVELS, palette
from service.explain.rows import (
    ALONE,
    GONE,
    HIGH,
    LOW,
    MERGED,
    Block,
    Row,
    blocks_of,
    is_wide,
    levels_of,
)

# Those of style.css on light paper.
COLOURS = {
    "paper": "#fffdf8",
    "ink": "#221b10",
    "quiet": "#6b6252",
    "line": "#ddd5c5",
    "tint": "#f6f0e3",
    "kept": "#2e2414",
    "merged": "#b9770e",
    "dropped": "#e9e1d1",
    "low": "#d9cdb6",
    "different": "#b01d3a",
}
VEIL = 0.86
GAP = 4  # pixels between one drawing and the next

Pixels = npt.NDArray[np.uint8]


def row_pixels(
    pane: Pane, row: Row, width: int, mel_height: int, fates_height: int, attention_height: int
) -> Pixels:
    """Log-mel, frames and attention of a row, one below the other: (height, width, 3)."""
    blocks = blocks_of(pane.kept, row)
    # Which frame each column of pixels shows.
    frames_W = np.arange(width) * len(row) // width
    gone_W = _fate_of(blocks, len(row), GONE)[frames_W]
    gap = np.broadcast_to(_rgb("paper"), (GAP, width, 3))
    drawn = (
        _mel(pane, row, width, mel_height, gone_W),
        gap,
        np.broadcast_to(_fates(blocks, row, frames_W), (fates_height, width, 3)),
        gap,
        _attention(levels_of(pane.kept, row)[frames_W], gone_W, attention_height),
    )
    pixels: Pixels = np.concatenate(drawn).round().astype(np.uint8)
    return pixels


def _rgb(name: str) -> npt.NDArray[np.float64]:
    return np.array(list(bytes.fromhex(COLOURS[name][1:])), float)


def _fate_of(blocks: Sequence[Block], num_frames: int, fate: str) -> npt.NDArray[np.bool_]:
    has = np.zeros(num_frames, bool)
    for block in blocks:
        has[block.first : block.last] = block.fate == fate
    return has


def _mel(
    pane: Pane, row: Row, width: int, height: int, gone_W: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    num_bands, num_columns = pane.mel_FT.shape
    per_frame = num_columns // len(pane.kept.importance)
    columns = row.first * per_frame + np.arange(width) * (len(row) * per_frame) // width
    bands = num_bands - 1 - np.arange(height) * num_bands // height
    inks, opacity = palette()
    levels_HW = np.rint(pane.mel_FT[bands][:, columns] * (LEVELS - 1)).astype(int)
    paper = _rgb("tint")
    shown: npt.NDArray[np.float64] = (
        paper + (inks[levels_HW] - paper) * opacity[levels_HW][..., None]
    )
    shown[:, gone_W] += (paper - shown[:, gone_W]) * VEIL
    return shown


def _fates(
    blocks: Sequence[Block], row: Row, frames_W: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """One line of pixels, each state parted from the next by one."""
    names = {ALONE: "kept", GONE: "dropped"}
    number = np.zeros(len(row), int)
    for at, block in enumerate(blocks):
        number[block.first : block.last] = at
    colours = np.array([_rgb(names.get(block.fate, "merged")) for block in blocks])
    line = colours[number[frames_W]]
    parted = (MERGED, ALONE) if is_wide(row) else (MERGED,)
    state = np.array([block.fate in parted for block in blocks])[number[frames_W]]
    ends = np.append(np.diff(number[frames_W]) > 0, False)
    line[ends & state] = _rgb("paper")
    return line


def _attention(
    levels_W: npt.NDArray[np.float64], gone_W: npt.NDArray[np.bool_], height: int
) -> npt.NDArray[np.float64]:
    ink_W3 = np.where(gone_W[:, None], _rgb("low"), _rgb("quiet"))
    filled_HW = np.arange(height)[::-1, None] < np.rint(levels_W * height)
    shown: npt.NDArray[np.float64] = np.where(filled_HW[..., None], ink_W3, _rgb("paper"))
    average = round(height * HIGH / (HIGH - LOW))
    dots = np.arange(len(levels_W)) % 5 < 2
    shown[average, dots] = _rgb("merged")
    return shown
