"""`winnow bench`: Winnow's speed beside other programs', and where its time goes.

Nothing else should run on the machine. What is measured is written after each turn, so that an
interruption loses nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.progress import say
from service.config import ServerConfig
from service.errors import WinnowError
from service.lab.arguments import positive

ROOT = Path(__file__).resolve().parents[1]
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
OURS = "winnow:dense,winnow:balanced,winnow:fast"
PEERS = "faster-whisper-int8,faster-whisper-float32,whisper.cpp,openvino-int8"
SLOW = "transformers,openai-whisper"
KINDS = {
    "full": "windows of 18 to 30 s, utterances of one speaker joined",
    "clips": "utterances as they are",
    "short": "utterances of less than 6 s",
}
SIDES_HELP = (
    "who takes part, the first being what others are compared with: winnow:PROFILE, "
    f"winnow:PROFILE:DTYPE, {PEERS.replace(',', ', ')}, {SLOW.replace(',', ', ')} (%(default)s)"
)


def main(argv: Sequence[str]) -> int:
    """Runs one of the commands and returns its exit status."""
    args = _parser().parse_args(argv)
    args.arguments = argv
    module = importlib.import_module(args.module)
    try:
        status: int = module.run(args)
    except WinnowError as error:
        say(f"winnow bench: {error}")
        return USAGE
    except KeyboardInterrupt:
        say("\nwinnow bench: interrupted; what was measured is written")
        return INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="winnow bench",
        description="Speed beside other programs, and where the time goes. Nothing else should run "
        "on the machine. See docs/bench.md for what is compared, and how fairly.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_clips(commands)
    _add_shapes(commands)
    _add_http(commands)
    _add_stages(commands)
    return parser


def _add_clips(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "clips",
        help="real recordings: word error rate beside times",
        description="Winnow and its peers on the same weights, recordings and threads, each in a "
        "process of its own, in turns within one run; the first turn is not timed. Seconds are "
        "from decoded audio to text. Peers come from scripts/peers.",
    )
    parser.set_defaults(module="bench.contest.clips")
    _add_recordings(parser)
    parser.add_argument(
        "--kinds",
        type=_names,
        default=list(KINDS),
        metavar="NAMES",
        help="; ".join(f"{name}: {what}" for name, what in KINDS.items()) + " (all)",
    )
    parser.add_argument("--model", default=ServerConfig().model, help="(%(default)s)")
    parser.add_argument("--limit", type=positive, default=16, help="of a kind (%(default)s)")
    _add_sides(parser, f"{OURS},{PEERS}")
    _add_turns(parser, "1,8,32")


def _add_shapes(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "shapes",
        help="the true shapes of large models with random weights: times alone",
        description="Windows of 30 s of hiss, and exactly so many tokens for each, on random "
        "weights in the shape of a model. One side at a time, for the memory: large takes 6 GB.",
    )
    parser.set_defaults(module="bench.contest.shaped")
    parser.add_argument(
        "--shapes",
        type=_names,
        default=["small", "large", "turbo"],
        metavar="NAMES",
        help="of tiny, base, small, medium, large (which is large-v3), turbo (small,large,turbo)",
    )
    parser.add_argument("--tokens", type=positive, default=64, help="a window (%(default)s)")
    _add_sides(parser, f"{OURS},{PEERS}")
    _add_turns(parser, "1,8,32")


def _add_http(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "http",
        help="the service over HTTP, with ever more requests in flight",
        description="Starts the service, sends it real recordings as WAV files with so many "
        "requests always in flight, and tells its rate and its latencies beside its words.",
    )
    parser.set_defaults(module="bench.served")
    _add_recordings(parser)
    parser.add_argument("--kind", choices=tuple(KINDS), default="clips", help="(%(default)s)")
    parser.add_argument("--model", default=ServerConfig().model, help="(%(default)s)")
    parser.add_argument("--dtype", default="auto", help="(%(default)s)")
    parser.add_argument(
        "--profiles",
        type=_names,
        default=["dense", "balanced"],
        metavar="NAMES",
        help="(dense,balanced)",
    )
    parser.add_argument(
        "--in-flight", type=_sizes, default=[1, 2, 4, 8, 16, 32, 64], help="(1,2,4,8,16,32,64)"
    )
    parser.add_argument("--limit", type=positive, default=64, help="recordings (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=3, help="(%(default)s)")
    _add_common(parser)


def _add_stages(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "stages",
        help="where Winnow's time goes, beside what each stage should cost",
        description="Times each stage of a batch of windows from outside, and puts beside it the "
        "arithmetic: operations over the measured rate of matrix products, bytes over the measured "
        "rate of copies.",
    )
    parser.set_defaults(module="bench.stages")
    parser.add_argument("--model", default=ServerConfig().model, help="(%(default)s)")
    parser.add_argument("--shape", help="random weights of this shape instead of --model")
    parser.add_argument("--profile", default="dense", help="(%(default)s)")
    parser.add_argument("--dtype", default="auto", help="(%(default)s)")
    parser.add_argument("--batch", type=positive, default=8, help="windows (%(default)s)")
    parser.add_argument("--tokens", type=positive, default=64, help="a window (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="(%(default)s)")
    parser.add_argument(
        "--operators", type=int, default=0, metavar="N", help="also the N costliest operators"
    )
    _add_common(parser)


def _add_recordings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, required=True, help="a folder with manifest.tsv")
    parser.add_argument("--domain", default="librispeech", help="its folder (%(default)s)")
    parser.add_argument("--language", default="en", help="of the domain (%(default)s)")


def _add_sides(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--sides", default=default, metavar="NAMES", help=SIDES_HELP)
    parser.add_argument(
        "--peers", type=Path, default=ROOT / ".peers", help="the peers' environment (.peers)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / ".peers" / "weights",
        help="where converted weights are kept (.peers/weights)",
    )


def _add_turns(parser: argparse.ArgumentParser, batches: str) -> None:
    parser.add_argument(
        "--batches", type=_sizes, default=_sizes(batches), help=f"clips at once ({batches})"
    )
    parser.add_argument("--rounds", type=positive, default=3, help="on the clock (%(default)s)")
    _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=positive,
        default=len(os.sched_getaffinity(0)),
        help="threads, of each side where there are several (as many as may be used: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="STEM",
        help="where STEM.json, STEM.md and STEM.png go; those to keep are in bench/results "
        "(runs/bench/COMMAND)",
    )


def stem(args: argparse.Namespace, name: str) -> Path:
    """Where the results of a command go."""
    return args.out if args.out is not None else Path("runs") / "bench" / name


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _sizes(text: str) -> list[int]:
    return [positive(size) for size in text.split(",")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
