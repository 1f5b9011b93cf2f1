"""An explanation as PNG, by matplotlib: pages of a few windows, drawn from top to bottom."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from service.errors import ConfigError
from service.explain.explanation import Explanation, Pane
from service.explain.plot_rows import draw_row, height_of
from service.explain.plot_text import LINE_IN, Line, draw_lines, lines_of, marked, plain
from service.explain.raster import COLOURS
from service.explain.rows import rows_of
from service.explain.sheet import INNER_IN, MARGIN_IN, Sheet

logger = logging.getLogger("winnow.explain")

PANES_PER_PAGE = 4
TITLE_IN, HEADING_IN, ROW_GAP_IN, PANE_GAP_IN = 0.36, 0.32, 0.13, 0.3
BETWEEN_IN = 0.3
COLUMN_IN = (INNER_IN - BETWEEN_IN) / 2


def check_installed() -> None:
    """Raises ConfigError where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("a PNG needs matplotlib: pip install matplotlib, or --out X.html")


def to_png(explanation: Explanation, out: Path) -> list[Path]:
    """Writes `out`, and for more than four windows `-2`, `-3` and so on beside it; returns them.

    Raises ConfigError where matplotlib is not installed, OSError where nothing can be written.
    """
    check_installed()
    panes = explanation.panes
    pages = [panes[at : at + PANES_PER_PAGE] for at in range(0, len(panes), PANES_PER_PAGE)] or [()]
    written = []
    for number, some in enumerate(pages, start=1):
        path = out if number == 1 else out.with_stem(f"{out.stem}-{number}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _page(explanation, some, opens=number == 1).save(path)
        if any("Glyph" in str(one.message) for one in caught):
            logger.warning("%s: no font here has all letters of this text; HTML shows them", path)
        written.append(path)
    return written


def _page(explanation: Explanation, panes: Sequence[Pane], *, opens: bool) -> Sheet:
    heading = list(_heading(explanation)) if opens else []
    height = 2 * MARGIN_IN + len(heading) * LINE_IN + (TITLE_IN if opens else 0)
    sheet = Sheet(height + sum(_height(explanation, pane) for pane in panes))
    at = MARGIN_IN
    if opens:
        title = f"{explanation.name} under {explanation.profile.name}"
        sheet.text(MARGIN_IN, at, title, fontsize=15, fontweight="bold")
        at += TITLE_IN
    draw_lines(sheet, heading, MARGIN_IN, at)
    at += len(heading) * LINE_IN
    for pane in panes:
        _draw(sheet, explanation, pane, at + PANE_GAP_IN)
        at += _height(explanation, pane)
    return sheet


def _heading(explanation: Explanation) -> Iterator[Line]:
    sentences = [explanation.profile.description]
    sentences.append(" · ".join(f"{what} {it}" for what, it in explanation.facts))
    if explanation.panes:
        sentences.append(
            "Frames, 20 ms each: dark ones are kept as they are, amber ones merged, a bar for each "
            "mean, pale ones dropped, and the log-mel above them veiled."
        )
        sentences.append(explanation.about_attention)
    else:
        sentences.append("Nobody speaks here: nothing of it went through the model.")
    for sentence in sentences:
        yield from lines_of(plain(sentence), INNER_IN)


def _height(explanation: Explanation, pane: Pane) -> float:
    rows = sum(height_of(explanation, pane, row) + ROW_GAP_IN for row in rows_of(pane))
    texts = 1 + max(len(lines) for _, lines in _columns(explanation, pane))
    lines = len(_notes(pane)) + texts
    return PANE_GAP_IN + HEADING_IN + lines * LINE_IN + 2 * ROW_GAP_IN + rows


def _draw(sheet: Sheet, explanation: Explanation, pane: Pane, at: float) -> None:
    sheet.line(MARGIN_IN, at - 0.1, INNER_IN)
    sheet.text(MARGIN_IN, at, pane.title, fontsize=11, fontweight="bold")
    notes = _notes(pane)
    draw_lines(sheet, notes, MARGIN_IN, at + 0.24)
    at += HEADING_IN + len(notes) * LINE_IN
    for row in rows_of(pane):
        draw_row(sheet, explanation, pane, row, at)
        at += height_of(explanation, pane, row) + ROW_GAP_IN
    for number, (heading, lines) in enumerate(_columns(explanation, pane)):
        x = MARGIN_IN + number * (COLUMN_IN + BETWEEN_IN)
        sheet.text(x, at, heading, fontweight="bold", color=COLOURS["quiet"])
        draw_lines(sheet, lines, x, at + LINE_IN)


def _notes(pane: Pane) -> list[Line]:
    sentences = (pane.about_frames, *pane.notes)
    return [line for one in sentences for line in lines_of(plain(one), INNER_IN)]


def _columns(explanation: Explanation, pane: Pane) -> list[tuple[str, list[Line]]]:
    """The texts with their headings, beside one another where they differ."""
    headings = explanation.text_headings(pane)
    width = COLUMN_IN if len(headings) > 1 else INNER_IN
    texts = (pane.words, pane.dense_words)
    return [
        (heading, lines_of(marked(words), width))
        for heading, words in zip(headings, texts, strict=False)
    ]
