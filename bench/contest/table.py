"""Turns to rows, and rows to a table and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contest.contestant import Contestant, Turn
from bench.contest.material import Clips
from service.lab.statistics import Estimate, difference
from service.text.wer import word_errors, words_of

HEADS = (
    "| clips | batch | side | computes in | WER | against the first "
    "| x real time: least, median, most | against the first | MB |"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A side on one kind of clips in batches of one size.

    `seconds`: of each turn on the clock. `wer`: in per cent, None where nobody knows what is said.
    `more`: WER less that of the first side, with its paired interval; None for that side.
    """

    kind: str
    batch: int
    side: str
    version: str
    compute: str
    audio_s: float
    seconds: tuple[float, ...]
    rss_mb: float
    wer: float | None = None
    more: Estimate | None = None

    @property
    def speeds(self) -> list[float]:
        """Times real time, slowest first."""
        return sorted(self.audio_s / seconds for seconds in self.seconds)


@dataclass(frozen=True, slots=True)
class Took:
    """A side, and its turns on one block. The first is the warm-up, and counts for memory only."""

    side: Contestant
    turns: Sequence[Turn]


def rows_of(clips: Clips, batch: int, taken: Sequence[Took]) -> list[Row]:
    """A row for each side that had a turn on the clock."""
    words = [words_of(item.text, item.language) for item in clips.items]
    counts = [len(some) for some in words]
    rows: list[Row] = []
    reference: list[int] | None = None
    for one in taken:
        if len(one.turns) < 2:
            continue
        row: dict[str, Any] = {}
        if any(counts):
            errors = [
                word_errors(said, words_of(text, item.language))
                for said, text, item in zip(words, one.turns[-1].texts, clips.items, strict=True)
            ]
            row["wer"] = 100 * sum(errors) / sum(counts)
            if reference is not None:
                row["more"] = difference(errors, reference, counts)
            reference = reference or errors
        rows.append(
            Row(
                kind=clips.kind,
                batch=batch,
                side=one.side.entry.name,
                version=one.side.version,
                compute=one.side.compute,
                audio_s=clips.seconds,
                seconds=tuple(turn.seconds for turn in one.turns[1:]),
                rss_mb=max(turn.rss_mb for turn in one.turns),
                **row,
            )
        )
    return rows


def table(rows: Sequence[Row], failed: Sequence[str]) -> str:
    """As Markdown, with the versions and who could not take part."""
    lines = [HEADS, "|---" * 9 + "|"]
    first: Row | None = None
    for row in rows:
        if first is None or (row.kind, row.batch) != (first.kind, first.batch):
            first = row
        lines.append(_line(row, first))
    versions = ", ".join(sorted({row.version for row in rows}))
    return "\n".join([*lines, "", versions, *(f"not there: {one}" for one in failed)])


def _line(row: Row, first: Row) -> str:
    least, most = row.speeds[0], row.speeds[-1]
    median = statistics.median(row.speeds)
    ratio = median / statistics.median(first.speeds)
    wer = "" if row.wer is None else f"{row.wer:.1f}"
    return (
        f"| {row.kind} | {row.batch} | {row.side} | {row.compute} | {wer} | {_points(row.more)} "
        f"| {least:.1f} / **{median:.1f}** / {most:.1f} | {ratio:.2f} | {row.rss_mb:.0f} |"
    )


def _points(more: Estimate | None) -> str:
    if more is None:
        return ""
    value, low, high = (100 * one for one in (more.value, more.low, more.high))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def plot(rows: Sequence[Row], path: Path) -> None:
    """A panel for each kind and batch: WER against times real time, or that alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = list(dict.fromkeys((row.kind, row.batch) for row in rows))
    if not panels:
        return
    across = min(4, len({batch for _, batch in panels}))  # a line for each kind
    down = -(-len(panels) // across)
    figure, axes = pyplot.subplots(
        down, across, figsize=(6 * across, 4 * down + 0.5), squeeze=False, layout="constrained"
    )
    sides = list(dict.fromkeys(row.side for row in rows))
    colours = {name: f"C{number % 10}" for number, name in enumerate(sides)}
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, panels, strict=False):
        some = [row for row in rows if (row.kind, row.batch) == panel]
        _panel(axis, some, colours)
        axis.set(title=f"{panel[0]}, batch {panel[1]}", xlabel="times real time", xlim=(0, None))
        axis.grid(alpha=0.3)
    if any(row.wer is not None for row in rows):
        # One legend for all: names beside points would lie on each other.
        points = [_point(name, colours[name]) for name in sides]
        figure.legend(handles=points, loc="outside lower center", ncols=min(5, len(sides)))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _panel(axis: Any, rows: Sequence[Row], colours: Mapping[str, str]) -> None:
    """Points where words are known, with the slowest and fastest turn; else bars."""
    medians = [statistics.median(row.speeds) for row in rows]
    if any(row.wer is None for row in rows):
        names = [row.side for row in rows]
        axis.barh(names, medians, color=[colours[name] for name in names])
        axis.invert_yaxis()
        return
    for row, median in zip(rows, medians, strict=True):
        axis.plot([row.speeds[0], row.speeds[-1]], [row.wer] * 2, "-", color=colours[row.side])
        axis.add_line(_point(row.side, colours[row.side], median, row.wer or 0.0))
    axis.set_ylabel("WER, %")
    axis.margins(y=0.15)


def _point(side: str, colour: str, x: float | None = None, y: float = 0.0) -> Any:
    """Round for ours, square for others."""
    from matplotlib.lines import Line2D

    marker = "o" if side.startswith("winnow") else "s"
    where = ([], []) if x is None else ([x], [y])
    return Line2D(*where, marker=marker, color=colour, linestyle="", alpha=0.8, label=side)
