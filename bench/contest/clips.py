"""`winnow bench clips`: real recordings, word error rate beside times."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.command import FAILED, OK, stem
from bench.contest.contestant import Contestant, Entry, entries
from bench.contest.material import clips_of
from bench.contest.rounds import blocks_of, plan, take_turns
from bench.contest.table import Row, plot, table
from bench.contest.weights import Weights
from bench.progress import Progress, say
from bench.record import Record


class Results:
    """Rows as they come, by block, and who is out."""

    def __init__(self, record: Record, asked: Sequence[Entry]) -> None:
        self.failed: list[str] = []
        self._record, self._rows = record, dict[tuple[str, int, str], Row]()
        self._sides = [entry.name for entry in asked]

    @property
    def rows(self) -> list[Row]:
        """By kind, batch and side."""
        kinds = list(dict.fromkeys(row.kind for row in self._rows.values()))

        def place(row: Row) -> tuple[int, int, int]:
            return kinds.index(row.kind), row.batch, self._sides.index(row.side)

        return sorted(self._rows.values(), key=place)

    def take(self, rows: Sequence[Row], failed: Sequence[str]) -> None:
        """A row of a block takes the place of what it was before."""
        self._rows |= {(row.kind, row.batch, row.side): row for row in rows}
        self.failed += [one for one in failed if one not in self.failed]
        self._record.write({"rows": [as_json(row) for row in self.rows], "not_there": self.failed})

    def finish(self) -> int:
        """Prints the table, and returns the exit status."""
        rows = self.rows
        self._record.finish(table(rows, self.failed), lambda path: plot(rows, path))
        return FAILED if self.failed else OK


def run(args: argparse.Namespace) -> int:
    """1 where a side could not take part, or failed on the way."""
    asked = entries(args.sides.split(","))
    record = Record(stem(args, "clips"), args.arguments, args.threads)
    results = Results(record, asked)
    with ExitStack() as open_:
        work = Path(open_.enter_context(tempfile.TemporaryDirectory()))
        say("reading the recordings")
        kinds = clips_of(args.corpus, args.domain, args.kinds, args.limit, work)
        weights = Weights(args.model, args.work, args.peers / "bin" / "python", say)
        sides = [
            open_.enter_context(side)
            for side in started(asked, weights, args.threads, args.peers, results)
        ]
        blocks = [block for clips in kinds for block in blocks_of(clips, args.batches)]
        progress = Progress(plan([side.entry for side in sides], blocks, args.rounds))
        try:
            take_turns(sides, blocks, args.rounds, args.language, progress, results.take)
        except KeyboardInterrupt:
            results.finish()
            raise
    return results.finish()


def started(
    asked: Sequence[Entry],
    weights: Weights,
    threads: int,
    peers: Path,
    results: Results,
    tokens: int | None = None,
) -> list[Contestant]:
    """Those that can be; the others are told, and are in the results."""
    sides: list[Contestant] = []
    for entry in asked:
        say(f"starting {entry.name}")
        try:
            sides.append(
                Contestant(entry, weights, threads, peers / "bin" / "python", tokens=tokens)
            )
        except (ChildProcessError, OSError) as error:
            say(f"not there: {error}")
            results.take([], [str(error)])
        except BaseException:
            for side in sides:
                side.close()
            raise
    return sides


def as_json(row: Row) -> dict[str, object]:
    """Figures of a row; `wer` and `more` in points."""
    more = row.more
    return {
        "clips": row.kind,
        "batch": row.batch,
        "side": row.side,
        "version": row.version,
        "compute": row.compute,
        "audio_s": row.audio_s,
        "seconds": list(row.seconds),
        "rss_mb": row.rss_mb,
        "wer": row.wer,
        "wer_more": None if more is None else [100 * x for x in (more.value, more.low, more.high)],
    }
