"""The command line of `python -m loadtest.compare`, checked once."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from loadtest.arrivals import LAWS
from loadtest.audio import BUILT_IN_MIX

UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
DESCRIPTION = f"""\
Compares speed profiles of a running service under an open loop of requests: the next one never
waits for the last answer. The profiles take turns within the run. Prints a table, and writes
report.json and report.png into --out.

  python -m loadtest.compare --profiles dense,balanced,fast --rate 1,2,4
  python -m loadtest.compare --find-max --p95 2s --soak 20m --overload 3m

Without --host it starts the service itself, with the settings of the environment (WINNOW_*;
whisper-base if there are none), and stops it afterwards.

Without --manifest it sends {BUILT_IN_MIX}.

Exit status: 0; 1 past a threshold, or nothing could be measured; 2 usage; 130 interrupted (the
report of what there was is written)."""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for. Times in seconds, rates in requests a second, shares from 0 to 1."""

    profiles: tuple[str, ...]
    host: str | None
    rate: tuple[float, ...]
    find_max: bool
    maximum: tuple[float, ...]
    duration: float
    rounds: int
    p95: float | None
    max_errors: float
    max_wer: float | None
    min_rate: float | None
    min_rtfx: float | None
    soak: float | None
    soak_share: float
    memory_every: float
    overload: float | None
    overload_factor: float
    obey_retry_after: float
    start_rate: float
    tolerance: float
    arrivals: str
    seed: int
    manifest: Path | None
    recordings: int
    language: str | None
    timeout: float
    max_lateness: float
    out: Path


def parse(argv: Sequence[str] | None = None) -> Options:
    """Reads the command line; exits with 2 and a sentence for what cannot be."""
    parser = _parser()
    args = parser.parse_args(argv)
    options = Options(**{f.name: getattr(args, f.name) for f in fields(Options)})
    if problem := _problem(options):
        parser.error(problem)
    return options


def seconds(text: str) -> float:
    """`500ms`, `2s`, `20m`, `1h`, or plain seconds."""
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", text)) or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r}: write 500ms, 2s, 20m or 1h")
    return float(found[1]) * UNITS[found[2] or ""]


def share(text: str) -> float:
    """`1%` or `0.01`."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write a share like 1% or 0.01")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number above 0")
    return value


def whole(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number above 0")
    return int(text)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(positive(part.strip()) for part in text.split(","))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names):
        raise argparse.ArgumentTypeError(f"{text!r}: write profiles like dense,fast")
    return names


def _problem(options: Options) -> str | None:
    if len(options.maximum) not in (0, 1, len(options.profiles)):
        return f"--maximum: give one rate, or one for each of {len(options.profiles)} profiles"
    if options.find_max and options.p95 is None:
        return "--find-max needs the limit that must hold: --p95 2s"
    if (options.soak or options.overload) and not (options.find_max or options.maximum):
        return "--soak and --overload are relative to a maximum: add --find-max or --maximum"
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.compare",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profiles", type=_names, default=("dense", "balanced", "fast"),
                        help="speed profiles, by commas (dense,balanced,fast)")  # fmt: skip
    parser.add_argument("--host", type=lambda url: url.rstrip("/"),
                        help="URL of a running service")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/loadtest"), help="(%(default)s)")
    _add_steps(parser)
    _add_thresholds(parser)
    _add_load(parser)
    return parser


def _add_steps(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("steps")
    mode = group.add_mutually_exclusive_group(required=True)
    mode.add_argument("--rate", type=_numbers, default=(), help="requests a second: 1,2,4")
    mode.add_argument("--find-max", action="store_true", help="the highest rate that holds --p95")
    mode.add_argument("--maximum", type=_numbers, default=(),
                      help="a maximum that is known: one rate, or one a profile")  # fmt: skip
    add = _adder(group)
    add("--duration", seconds, 30.0, "of a step (30s)")
    add("--rounds", whole, 1, "of all --rate steps (1)")
    add("--start-rate", positive, 1.0, "at which --find-max begins (1)")
    add("--tolerance", share, 0.1, "to which --find-max searches (10%%)")
    add("--soak", seconds, None, "a long step below the maximum: 20m")
    add("--soak-share", share, 0.8, "of the maximum (0.8)")
    add("--memory-every", seconds, 300.0, "the server's memory in the report (5m)")
    add("--overload", seconds, None, "a step above the maximum: 3m")
    add("--overload-factor", positive, 4.0, "times the maximum (4)")


def _add_thresholds(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("thresholds, past which the exit status is 1")
    add = _adder(group)
    add("--p95", seconds, None, "most seconds for 95%% of the answers: 2s")
    add("--max-errors", share, 0.01, "most requests without an answer (1%%)")
    add("--max-wer", share, None, "most word errors of a profile: 30%%")
    add("--min-rate", positive, None, "least maximum that --find-max must find")
    add("--min-rtfx", positive, None, "least seconds of audio answered a second")


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument("--arrivals", choices=LAWS, default=LAWS[0], help="(%(default)s)")
    add = _adder(group)
    add("--seed", int, 0, "of arrivals and order (0)")
    add("--manifest", Path, None, "a CSV or TSV with columns path (relative to it), transcript")
    add("--recordings", whole, 200, "most of the manifest's, drawn by the seed (200)")
    add("--language", str, None, "that every request names")
    add("--timeout", seconds, 60.0, "after which a request counts as an error (60s)")
    add("--obey-retry-after", share, 0.1,
        "share of the refused clients that wait as told and come back once (10%%)")  # fmt: skip
    add("--max-lateness", seconds, 0.05,
        "p99 by which sends may be late before the generator is at fault (50ms)")  # fmt: skip


def _adder(
    group: argparse._ArgumentGroup,
) -> Callable[[str, Callable[[str], object], object, str], None]:
    def add(name: str, kind: Callable[[str], object], default: object, text: str) -> None:
        group.add_argument(name, type=kind, default=default, help=text)

    return add
