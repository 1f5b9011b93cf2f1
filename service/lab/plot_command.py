"""`winnow plot`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from service.errors import ConfigError


def add(subparsers: Any) -> None:
    plot = subparsers.add_parser(
        "plot",
        help="draw word error rate against speed",
        description="Draws word error rate against speed, from what winnow evaluate --speed N "
        "--out and winnow search write: every profile with its intervals, and each model's "
        "frontier.",
    )
    plot.add_argument("reports", nargs="+", type=Path, metavar="JSON", help="one or more")
    plot.add_argument(
        "--out", type=Path, default=Path("frontier.png"), metavar="PNG", help="(%(default)s)"
    )
    plot.add_argument(
        "--domain", metavar="NAME", help="which recordings (the first that were timed)"
    )
    plot.set_defaults(run=_plot)


def _plot(args: argparse.Namespace) -> int:
    from service.lab.drawing import to_png
    from service.lab.frontier import Point, picture, read

    domain: str | None = args.domain
    points: list[Point] = []
    for path in args.reports:
        there, some = read(path, domain)
        if domain is None:
            domain = there
        elif there != domain:
            raise ConfigError(f"{path}: {there} was timed, not {domain}; choose with --domain")
        points += some
    args.out.write_bytes(to_png(picture(domain or "", points)))
    print(args.out)
    return 0
