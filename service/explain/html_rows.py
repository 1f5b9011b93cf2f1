"""The rows of a pane in HTML: graphics stretch with the page, words do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from service.explain.differences import SAME
from service.explain.explanation import Explanation, Pane, ShownWord, clock
from service.explain.fates import tally
from service.explain.picture import data_uri, png_of
from service.explain.rows import (
    ALONE,
    GONE,
    HIGH,
    LOW,
    MERGED,
    Block,
    Levels,
    Row,
    blocks_of,
    is_wide,
    levels_of,
    place,
    rows_of,
    ticks_of,
)

CHARS = 132.0  # letters that fit in the narrowest row that the style allows
LANE_REM = 1.15
TALL = 100.0  # units of height of every drawing
AVERAGE = TALL * (1 - (0 - LOW) / (HIGH - LOW))


def rows_html(explanation: Explanation, pane: Pane, *, audio: bool) -> str:
    """All rows of a pane; with `audio` words are buttons, and a line shows what is heard."""
    return "\n".join(_row(explanation, pane, row, audio=audio) for row in rows_of(pane))


def _row(explanation: Explanation, pane: Pane, row: Row, *, audio: bool) -> str:
    blocks = blocks_of(pane.kept, row)
    name = explanation.profile.name
    lines = [
        ("", "ticks", _ticks(pane, row)),
        ("padding" if row.padding else "log-mel", "mel", _mel(pane, row, blocks)),
        ("frames", "fates", _fates(pane, row, blocks)),
        ("attention", "attention", _attention(pane, row, blocks)),
        *_words(name, pane.words, pane, row, audio=audio),
        *_words("dense", [w for w in pane.dense_words if w.mark != SAME], pane, row, audio=False),
    ]
    first, last = row.first * pane.frame_s, row.last * pane.frame_s
    cursor = f'<div class="cursor" data-first="{first:.3f}" data-last="{last:.3f}" hidden></div>'
    cells = "".join(
        f'<div class="label">{escape(label)}</div>'
        f'<div class="track {style}">{inside}{cursor if audio and style == "mel" else ""}</div>'
        if style != "words"
        else f'<div class="label">{escape(label)}</div>{inside}'
        for label, style, inside in lines
    )
    return f'<div class="row{" pads" if row.padding else ""}">{cells}</div>'


def _ticks(pane: Pane, row: Row) -> str:
    return "".join(
        f'<span style="left:{100 * tick.at:.2f}%">{_short(tick.seconds)}</span>'
        for tick in ticks_of(pane, row)
        if tick.at < 0.985  # its label would hang over the end
    )


def _short(seconds: float) -> str:
    """`1:02.5`, `1:02`."""
    return clock(seconds).rstrip("0").rstrip(".") if seconds % 1 > 1e-6 else clock(seconds)[:-3]


def _mel(pane: Pane, row: Row, blocks: Sequence[Block]) -> str:
    columns = pane.mel_FT.shape[1] // len(pane.kept.importance)
    picture = png_of(pane.mel_FT[:, row.first * columns : row.last * columns])
    image = f'<img alt="" src="{data_uri(picture, "image/png")}">'
    veil = _bars(blocks, GONE, gap=0)
    return image + (_svg(row, f'<path class="veil" d="{veil}"/>') if veil else "")


def _fates(pane: Pane, row: Row, blocks: Sequence[Block]) -> str:
    # A hair between one state and the next, where there is room for one.
    gaps = {ALONE: 0.3, MERGED: 0.3, GONE: 0} if is_wide(row) else {ALONE: 0, MERGED: 0.6, GONE: 0}
    paths = "".join(
        f'<path class="{fate}" d="{bars}"/>'
        for fate, gap in gaps.items()
        if (bars := _bars(blocks, fate, gap))
    )
    told = tally(pane.kept, row.first, row.last)
    start = pane.start_s + row.first * pane.frame_s
    end = pane.start_s + row.last * pane.frame_s
    label = f"{clock(start)} to {clock(end)}: {told}"
    return _svg(row, paths, label)


def _attention(pane: Pane, row: Row, blocks: Sequence[Block]) -> str:
    levels = levels_of(pane.kept, row)
    kept = [block for block in blocks if block.fate != GONE]
    gone = [block for block in blocks if block.fate == GONE]
    outside = f'<path class="out" d="{_steps(levels, gone)}"/>' if gone else ""
    inside = f'<path class="in" d="{_steps(levels, kept)}"/>' if kept else ""
    line = f'<path class="average" d="M0 {AVERAGE:.1f}H{len(row)}"/>'
    return _svg(row, outside + inside + line)


def _svg(row: Row, inside: str, label: str = "") -> str:
    role = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    box = f"0 0 {len(row)} {TALL:g}"
    return f'<svg viewBox="{box}" preserveAspectRatio="none" {role}>{inside}</svg>'


def _bars(blocks: Sequence[Block], fate: str, gap: float) -> str:
    return "".join(
        f"M{block.first} 0h{block.last - block.first - gap:g}v{TALL:g}H{block.first}z"
        for block in blocks
        if block.fate == fate
    )


def _steps(levels: Levels, blocks: Sequence[Block]) -> str:
    """The area under the levels of these blocks' frames."""
    return "".join(_area(levels, first, last) for first, last in _runs(blocks))


def _runs(blocks: Sequence[Block]) -> Iterator[tuple[int, int]]:
    """Blocks that touch, as one."""
    first = last = -1
    for block in blocks:
        if block.first != last:
            if last > first:
                yield first, last
            first = block.first
        last = block.last
    if last > first:
        yield first, last


def _area(levels: Levels, first: int, last: int) -> str:
    steps = "".join(f"V{TALL * (1 - level):.0f}h1" for level in levels[first:last].tolist())
    return f"M{first} {TALL:g}{steps}V{TALL:g}z"


def _words(
    label: str, words: Sequence[ShownWord], pane: Pane, row: Row, *, audio: bool
) -> list[tuple[str, str, str]]:
    """A line of words, or none where the row has none."""
    placed = place(words, pane, row, CHARS)
    if not placed:
        return []
    items = []
    for one in placed:
        word, text = one.word, escape(one.word.text.strip())
        told = f"{clock(word.start)} to {clock(word.end)}, probability {word.probability:.2f}"
        style = (
            f"left:{100 * one.at:.2f}%;top:{one.lane * LANE_REM:.2f}rem;"
            f"--lasts:{100 * (one.until - one.at):.2f}cqw"
        )
        if audio:
            at = max(0.0, word.start - pane.start_s)
            text = f'<button type="button" data-at="{at:.3f}">{text}</button>'
        mark = f' class="{word.mark}"' if word.mark != SAME else ""
        items.append(f'<li style="{style}" title="{told}"{mark}>{text}</li>')
    height = LANE_REM * (1 + max(one.lane for one in placed)) + 0.1
    inside = f'<ol class="track words" style="height:{height:.2f}rem">{"".join(items)}</ol>'
    return [(label, "words", inside)]
