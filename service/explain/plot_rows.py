"""The rows of a pane by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence

from service.explain.differences import SAME
from service.explain.explanation import Explanation, Pane, ShownWord, clock
from service.explain.plot_text import STYLES
from service.explain.raster import COLOURS, GAP, row_pixels
from service.explain.rows import Placed, Row, place, ticks_of
from service.explain.sheet import DPI, MARGIN_IN, WIDTH_IN, Sheet

LEFT_IN = 1.15
TRACK_IN = WIDTH_IN - LEFT_IN - MARGIN_IN
CHARS = 155.0  # letters that fit into a row
TICKS_IN, MEL_IN, PADDING_IN, FATES_IN, ATTENTION_IN, LANE_IN = 0.17, 0.62, 0.14, 0.1, 0.27, 0.155
GAP_IN = GAP / DPI
SMALL = 6.5


def height_of(explanation: Explanation, pane: Pane, row: Row) -> float:
    """Inches that a row takes."""
    lanes = sum(_num_lanes(placed) for _, placed in _said(explanation, pane, row))
    mel = PADDING_IN if row.padding else MEL_IN
    return TICKS_IN + mel + FATES_IN + ATTENTION_IN + 3 * GAP_IN + lanes * LANE_IN


def draw_row(sheet: Sheet, explanation: Explanation, pane: Pane, row: Row, at: float) -> None:
    """A row whose upper edge is `at` inches."""
    for tick in ticks_of(pane, row):
        x = LEFT_IN + tick.at * TRACK_IN
        if tick.at < 0.97:  # its label would hang over the end
            label = clock(tick.seconds)[:-1] if tick.seconds % 1 else clock(tick.seconds)[:-3]
            sheet.line(x, at, height_in=TICKS_IN)
            sheet.text(x + 0.03, at, label, fontsize=SMALL, color=COLOURS["quiet"])
    at += TICKS_IN
    mel = PADDING_IN if row.padding else MEL_IN
    heights = [round(inches * DPI) for inches in (mel, FATES_IN, ATTENTION_IN)]
    sheet.pixels(LEFT_IN, at, row_pixels(pane, row, round(TRACK_IN * DPI), *heights))
    _label(sheet, at, "padding" if row.padding else "log-mel")
    at += mel + GAP_IN
    _label(sheet, at - 0.02, "frames")
    at += FATES_IN + GAP_IN
    _label(sheet, at + 0.08, "attention")
    at += ATTENTION_IN + GAP_IN
    for name, placed in _said(explanation, pane, row):
        if placed:
            _label(sheet, at, name if len(name) < 14 else name[:12] + "…")
        for one in placed:
            x, y = LEFT_IN + one.at * TRACK_IN, at + one.lane * LANE_IN
            sheet.line(x, y, max(0.02, (one.until - one.at) * TRACK_IN))
            style = {"fontsize": 7.5} | STYLES[one.word.mark]
            sheet.text(x, y + 0.015, one.word.text.strip(), **style)
        at += _num_lanes(placed) * LANE_IN


def _said(explanation: Explanation, pane: Pane, row: Row) -> list[tuple[str, list[Placed]]]:
    """The profile's words, and those of dense's that are others."""
    others: list[ShownWord] = [word for word in pane.dense_words if word.mark != SAME]
    return [
        (explanation.profile.name, place(pane.words, pane, row, CHARS)),
        ("dense", place(others, pane, row, CHARS)),
    ]


def _num_lanes(placed: Sequence[Placed]) -> int:
    return 1 + max((one.lane for one in placed), default=-1)


def _label(sheet: Sheet, at: float, text: str) -> None:
    sheet.text(LEFT_IN - 0.1, at, text, fontsize=SMALL, ha="right", color=COLOURS["quiet"])
