"""The lab's commands, and the door to `bench/`."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from service.errors import ConfigError
from service.lab import (
    compress_command,
    evaluate_command,
    explain_command,
    plot_command,
    reproduce_command,
    search_command,
    train_command,
)


def add_commands(subparsers: Any) -> None:
    """Adds the lab's commands; each sets `run`, which takes the arguments and returns a status."""
    evaluate_command.add(subparsers)
    search_command.add(subparsers)
    reproduce_command.add(subparsers)
    explain_command.add(subparsers)
    compress_command.add(subparsers)
    train_command.add(subparsers)
    plot_command.add(subparsers)
    bench = subparsers.add_parser(
        "bench",
        help="speed and words beside faster-whisper, whisper.cpp and others, from a checkout",
        add_help=False,
        prefix_chars="\0",  # nothing is an option here: bench/ reads them all
    )
    bench.add_argument("rest", nargs="*")
    bench.set_defaults(run=_bench)


def _bench(args: argparse.Namespace) -> int:
    """Raises ConfigError in an installation: what measures is no part of the package."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "bench" / "command.py").is_file():
        raise ConfigError(
            "bench needs a checkout of Winnow's sources: run `python -m bench` in its folder"
        )
    sys.path.insert(0, str(checkout))
    status: int = importlib.import_module("bench.command").main(args.rest)
    return status
