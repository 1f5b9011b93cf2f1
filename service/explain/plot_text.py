"""Running text for matplotlib, which knows no lines that break, nor words of another colour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from service.explain.differences import ADDED, CHANGED, MISSING, SAME
from service.explain.explanation import ShownWord
from service.explain.raster import COLOURS
from service.explain.sheet import Sheet, width_of

LINE_IN = 0.19
# A mark is more than a colour.
STYLES = {
    SAME: {},
    CHANGED: {"color": COLOURS["different"], "fontweight": "bold"},
    ADDED: {"color": COLOURS["different"], "fontweight": "bold"},
    MISSING: {"color": COLOURS["different"], "fontstyle": "italic"},
}
BOLD_WIDENS = 1.13


@dataclass(frozen=True, slots=True)
class Run:
    """A word with its leading space."""

    text: str
    mark: str = SAME

    @property
    def width_in(self) -> float:
        return width_of(self.text) * (BOLD_WIDENS if self.mark in (CHANGED, ADDED) else 1)


Line = list[Run]


def plain(text: str) -> list[Run]:
    """A text as words."""
    return [Run(f" {word}") for word in text.split()]


def marked(words: Iterable[ShownWord]) -> list[Run]:
    """A text whose words may be marked; `+` stands before those that are added."""
    runs = [Run(_signed(word), word.mark) for word in words]
    return runs or [Run("(nothing)")]


def lines_of(runs: Iterable[Run], width_in: float) -> list[Line]:
    """The words in lines that are no wider, but for a word that is."""
    lines: list[Line] = [[]]
    used = 0.0
    for run in runs:
        if lines[-1] and used + run.width_in > width_in:
            lines.append([])
            used = 0.0
        if not lines[-1]:
            run = Run(run.text.lstrip(), run.mark)
        lines[-1].append(run)
        used += run.width_in
    return lines


def draw_lines(sheet: Sheet, lines: Iterable[Line], x_in: float, y_in: float) -> None:
    """Lines from an upper left corner down."""
    for number, line in enumerate(lines):
        at = x_in
        for run in line:
            sheet.text(at, y_in + number * LINE_IN, run.text, **STYLES[run.mark])
            at += run.width_in


def _signed(word: ShownWord) -> str:
    text = word.text.lstrip()
    space = word.text[: len(word.text) - len(text)]
    return f"{space}+{text}" if word.mark == ADDED else word.text
