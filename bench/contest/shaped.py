"""`winnow bench shapes`: the true shapes of large models with random weights, times alone."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench.command import stem
from bench.contest.clips import Results, started
from bench.contest.contestant import Entry, entries
from bench.contest.material import hiss
from bench.contest.rounds import Block, plan, take_turns
from bench.contest.weights import Weights
from bench.progress import Progress, say
from bench.record import Record
from bench.shapes import write_shape


def run(args: argparse.Namespace) -> int:
    """1 where a side could not take part, or failed on the way."""
    asked = entries(args.sides.split(","))
    record = Record(stem(args, "shapes"), args.arguments, args.threads)
    results = Results(record, asked)
    with tempfile.TemporaryDirectory() as work:
        blocks = {
            shape: [
                Block(hiss(f"{shape}, {args.tokens} tokens", batch, Path(work)), batch, not number)
                for number, batch in enumerate(args.batches)
            ]
            for shape in args.shapes
        }
        turns = [
            turn
            for some in blocks.values()
            for entry in asked
            for turn in plan([entry], some, args.rounds)
        ]
        progress = Progress(turns)
        try:
            for shape, some in blocks.items():
                weights = _weights(shape, args)
                for entry in asked:
                    _measure(entry, weights, some, args, progress, results)
        except KeyboardInterrupt:
            results.finish()
            raise
    return results.finish()


def _measure(
    entry: Entry,
    weights: Weights,
    blocks: list[Block],
    args: argparse.Namespace,
    progress: Progress,
    results: Results,
) -> None:
    """A side alone: two of them would not fit the memory of a small machine."""
    sides = started([entry], weights, args.threads, args.peers, results, tokens=args.tokens)
    if not sides:
        progress.skip_next(sum((args.rounds + 1) * block.takes(entry) for block in blocks))
    for side in sides:
        with side:
            take_turns([side], blocks, args.rounds, "en", progress, results.take)


def _weights(shape: str, args: argparse.Namespace) -> Weights:
    folder = args.work / f"shape-{shape}"
    if not folder.exists():
        say(f"writing random weights in the shape of {shape}")
        write_shape(folder, shape)
    return Weights(str(folder), args.work, args.peers / "bin" / "python", say)
