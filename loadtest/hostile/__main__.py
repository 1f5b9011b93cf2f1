"""`python -m loadtest.hostile URL`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtest.hostile.drill import KINDS, Asking, drill
from loadtest.hostile.verdict import Limits, judge, report, write_json
from loadtest.options import positive, seconds, whole
from loadtest.own_service import ServiceFailed

OK, FAILED, INTERRUPTED = 0, 1, 130
DESCRIPTION = """\
Sends a running service what no honest client sends: damaged and malicious files, forms, WebSocket
frames and connections, while an ordinary client goes on asking. A seed and a number make a trial,
the same each time: --only NUMBER sends it again, alone.

  winnow serve --model fake --port 8123 &
  python -m loadtest.hostile http://127.0.0.1:8123 --seed 1 --number 10000

Against the rules are: an answer of 500 or more (a WebSocket's 1011), no end after --hang, a whole
request that is not answered, an error in no known shape, an ordinary request that fails or takes
--slower longer than before, and more memory or descriptors at the end than at the beginning.

Exit status: 0; 1 if anything was against the rules, or there is no service; 2 usage; 130
interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it and returns the exit status."""
    args = _parser().parse_args(argv)
    limits = Limits(args.hang, args.slower, args.memory_mb, args.peak_mb, args.descriptors)
    asking = Asking(
        url=args.url,
        seed=args.seed,
        numbers=range(args.number) if args.only is None else [args.only],
        kinds=args.kinds,
        concurrency=args.concurrency,
        every_s=args.every,
        num_quiet=args.quiet,
        limits=limits,
        settle_s=args.settle,
        pid=args.pid,
        save=args.save,
    )
    try:
        run = drill(asking)
    except ServiceFailed as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("loadtest: interrupted", file=sys.stderr)
        return INTERRUPTED
    verdict = judge(run, limits)
    print(report(verdict))
    if args.only is not None:
        print(*(f"{one.kind}, {one.what}: {one.status}" for one in run.outcomes), sep="\n")
    if args.json:
        write_json(args.json, run, verdict)
    return FAILED if verdict.faults else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.hostile",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("url", metavar="URL", help="of the service, http://HOST:PORT")
    add("--seed", type=int, default=0, help="(0)")
    add("--number", type=whole, default=1000, help="of trials (1000)")
    add("--only", type=int, metavar="NUMBER", help="this trial alone")
    add("--kinds", type=_kinds, default=tuple(KINDS), help=f"by commas ({','.join(KINDS)})")
    add("--concurrency", type=whole, default=8, help="trials side by side (8)")
    add("--every", type=seconds, default=0.5, help="between ordinary requests (500ms)")
    add("--quiet", type=whole, default=20, help="ordinary requests before all (20)")
    add("--settle", type=seconds, default=60.0, help="for what is held at the end (60s)")
    add("--pid", type=int, help="of the service; left out, who listens on the port here")
    add("--save", type=Path, metavar="DIR", help="what was sent by each trial with a fault")
    add("--json", type=Path, metavar="FILE", help="figures, faults and every trial")
    group = parser.add_argument_group("limits, past which the exit status is 1")
    group.add_argument("--hang", type=seconds, default=10.0, help="to the end of a trial (10s)")
    group.add_argument("--slower", type=seconds, default=1.0, help="an ordinary request (1s)")
    group.add_argument("--memory-mb", type=positive, default=100.0, help="at the end (100)")
    group.add_argument("--peak-mb", type=positive, default=500.0, help="at any time (500)")
    group.add_argument("--descriptors", type=int, default=0, help="at the end (0)")
    return parser


def _kinds(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(KINDS):
        raise argparse.ArgumentTypeError(f"{text!r}: use {', '.join(KINDS)}, by commas")
    return names


if __name__ == "__main__":
    sys.exit(main())
