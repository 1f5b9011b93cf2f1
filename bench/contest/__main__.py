"""Winnow's profiles against its peers on a CPU: speed, with the words beside it.

    scripts/peers                       # once: the peers' environment, in .peers
    python -m bench.contest --corpus CORPUS --threads 2

The same weights, recordings and threads for every side; each in a process of its own, in turns
within one run, every round beginning with the next one; a first turn before the clock is the
warm-up. Seconds are from decoded audio to text, measured on the side. Nothing else should run on
the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from bench.contest.contestant import PEERS, Contestant, Turn, entries
from bench.contest.material import KINDS, Clips, clips_of
from bench.contest.table import Contest, Row, rows_of, write
from bench.contest.weights import Weights

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = "winnow:dense,winnow:balanced,winnow:fast,faster-whisper-int8,faster-whisper-float32"


def main() -> int:
    """Runs the contest and prints its table; 1 where a side could not take part."""
    args = _parser().parse_args()
    peers = args.peers / "bin" / "python"
    failed: list[str] = []
    with ExitStack() as open_, tempfile.TemporaryDirectory() as temporary:
        weights = Weights(args.model, args.work, peers)
        sides: list[Contestant] = []
        for entry in entries(args.sides.split(",")):
            try:
                side = Contestant(entry, args.model, weights, args.threads, peers)
            except (ChildProcessError, OSError) as error:
                failed.append(str(error))
                continue
            sides.append(open_.enter_context(side))
        kinds = clips_of(
            args.corpus, args.domain, args.kinds.split(","), args.limit, Path(temporary)
        )
        batches = [int(size) for size in args.batches.split(",")]
        rows = _rounds(sides, kinds, batches, args)
    contest = Contest(rows, tuple(failed), args.model, args.threads, args.limit, args.rounds)
    print(write(contest, args.json, args.plot))
    return 1 if failed else 0


def _rounds(
    sides: list[Contestant], kinds: list[Clips], batches: list[int], args: argparse.Namespace
) -> list[Row]:
    rows: list[Row] = []
    total = len(kinds) * len(batches) * len(sides) * (args.rounds + 1)
    with tqdm(total=total, unit="turn", disable=None) as bar:
        for clips in kinds:
            for batch in batches:
                turns: dict[str, list[Turn]] = {side.entry.name: [] for side in sides}
                for number in range(args.rounds + 1):
                    first = number % len(sides)
                    for side in (*sides[first:], *sides[:first]):
                        bar.set_postfix_str(f"{clips.kind} {batch} {side.entry.name}")
                        turns[side.entry.name].append(side.turn(clips.file, batch, args.language))
                        bar.update()
                rows += rows_of(clips, batch, sides, turns)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.contest",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--corpus", type=Path, required=True, help="a folder with manifest.tsv")
    parser.add_argument("--domain", default="librispeech", help="(%(default)s)")
    parser.add_argument("--language", default="en", help="of the domain (%(default)s)")
    parser.add_argument("--model", default="whisper-base", help="(%(default)s)")
    parser.add_argument(
        "--sides",
        default=DEFAULT,
        help="winnow:PROFILE, winnow:PROFILE:DTYPE, " + ", ".join(PEERS) + "\n(%(default)s)",
    )
    parser.add_argument(
        "--kinds",
        default=",".join(KINDS),
        help="\n".join(f"{name}: {what}" for name, what in KINDS.items()) + "\n(%(default)s)",
    )
    parser.add_argument("--batches", default="1,8", help="clips at once (%(default)s)")
    parser.add_argument("--limit", type=int, default=32, help="clips of a kind (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="on the clock (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each side (%(default)s)")
    parser.add_argument(
        "--peers", type=Path, default=ROOT / ".peers", help="the peers' environment (.peers)"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".peers" / "weights", help="for converted weights"
    )
    parser.add_argument("--json", type=Path, help="write every turn here")
    parser.add_argument("--plot", type=Path, help="write a PNG here: WER against speed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
