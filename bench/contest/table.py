"""Turns to rows, and rows to a table, a JSON file and a picture."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.contest.contestant import Contestant, Turn
from bench.contest.material import Clips
from service.lab.machine import machine
from service.lab.statistics import Estimate, difference
from service.lab.wer import word_errors, words_of

HEADS = (
    "| clips | batch | side | computes in | WER | against the first "
    "| x real time: least, median, most | against the first | MB |"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A side on one kind of clips in batches of one size.

    `seconds`: of each turn on the clock. `more`: WER less that of the first side, in points, with
    its paired interval; None for that side.
    """

    kind: str
    batch: int
    side: str
    version: str
    compute: str
    audio_s: float
    seconds: tuple[float, ...]
    rss_mb: float
    wer: float
    more: Estimate | None

    @property
    def speeds(self) -> list[float]:
        """Times real time, slowest first."""
        return sorted(self.audio_s / seconds for seconds in self.seconds)


@dataclass(frozen=True, slots=True)
class Contest:
    """All rows, and how they were come by."""

    rows: Sequence[Row]
    failed: tuple[str, ...]
    model: str
    threads: int
    limit: int
    rounds: int


def rows_of(
    clips: Clips, batch: int, sides: Sequence[Contestant], turns: Mapping[str, Sequence[Turn]]
) -> list[Row]:
    """A row for each side. The first turn is the warm-up and counts for nothing but memory."""
    words = [words_of(item.text, item.language) for item in clips.items]
    counts = [len(some) for some in words]
    rows: list[Row] = []
    reference: list[int] = []
    for side in sides:
        took = turns[side.entry.name]
        errors = [
            word_errors(said, words_of(text, item.language))
            for said, text, item in zip(words, took[-1].texts, clips.items, strict=True)
        ]
        reference = reference or errors
        rows.append(
            Row(
                kind=clips.kind,
                batch=batch,
                side=side.entry.name,
                version=side.version,
                compute=side.compute,
                audio_s=clips.seconds,
                seconds=tuple(turn.seconds for turn in took[1:]),
                rss_mb=max(turn.rss_mb for turn in took),
                wer=100 * sum(errors) / sum(counts),
                more=difference(errors, reference, counts) if rows else None,
            )
        )
    return rows


def write(contest: Contest, to_json: Path | None, to_plot: Path | None) -> str:
    """The table, as Markdown. Writes the other two where they are asked for."""
    where = machine("cpu", contest.threads)
    if to_json is not None:
        whole = {"machine": where, "arguments": sys.argv[1:], **asdict(contest)}
        to_json.write_text(json.dumps(whole, indent=1) + "\n")
    if to_plot is not None:
        plot(contest, to_plot)
    lines = [
        f"{contest.model}, {contest.threads} threads, at most {contest.limit} clips of a kind, "
        f"{contest.rounds} rounds in turns",
        "",
        HEADS,
        "|---" * 9 + "|",
    ]
    first: Row | None = None
    for row in contest.rows:
        if first is None or (row.kind, row.batch) != (first.kind, first.batch):
            first = row
        lines.append(_line(row, first))
    versions = sorted({row.version for row in contest.rows})
    return "\n".join(
        [*lines, "", ", ".join(versions), *(f"not there: {f}" for f in contest.failed)]
    )


def _line(row: Row, first: Row) -> str:
    least, *_, most = row.speeds
    median = statistics.median(row.speeds)
    ratio = median / statistics.median(first.speeds)
    return (
        f"| {row.kind} | {row.batch} | {row.side} | {row.compute} | "
        f"{row.wer:.1f} | {_points(row.more)} "
        f"| {least:.1f} / **{median:.1f}** / {most:.1f} | {ratio:.2f} | {row.rss_mb:.0f} |"
    )


def plot(contest: Contest, path: Path) -> None:
    """WER against times real time, a panel for each kind and batch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = list(dict.fromkeys((row.kind, row.batch) for row in contest.rows))
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(5 * len(panels), 4), squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes[0], panels, strict=True):
        for row in contest.rows:
            if (row.kind, row.batch) == panel:
                x = statistics.median(row.speeds)
                ours = row.side.startswith("winnow")
                axis.plot(x, row.wer, "o" if ours else "s", color="#8a5a00" if ours else "#456")
                axis.annotate(row.side, (x, row.wer), (4, 4), textcoords="offset points", size=8)
        axis.set(title=f"{panel[0]}, batch {panel[1]}", xlabel="times real time", ylabel="WER, %")
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _points(more: Estimate | None) -> str:
    if more is None:
        return ""
    value, low, high = (100 * one for one in (more.value, more.low, more.high))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
