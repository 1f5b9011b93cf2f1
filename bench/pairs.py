"""What `winnow evaluate --out` measured twice, side by side: types, models or versions.

    winnow evaluate ... --dtype float32 --out float32.json
    winnow evaluate ... --dtype int8 --out int8.json
    python -m bench.pairs float32.json int8.json

Prints corpus word error rates of the recordings that both have, and the second's less the
first's with its paired 95% interval, for each domain and profile.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.errors import ConfigError
from service.lab.statistics import difference

HEAD = "| domain | recordings | profile | first | second | second less first, points |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    args = parser.parse_args()
    first, second = (json.loads(path.read_text()) for path in (args.first, args.second))
    print("\n".join([HEAD, "|---" * 6 + "|", *rows(first, second)]))


def rows(first: dict[str, Any], second: dict[str, Any]) -> Iterator[str]:
    """A line for each domain and profile that both have. Raises ConfigError where the recordings
    are not the same."""
    others = {domain["domain"]: domain for domain in second["domains"]}
    for domain in first["domains"]:
        other = others.get(domain["domain"])
        if other is None:
            continue
        items = domain["items"]
        if [item["name"] for item in items] != [item["name"] for item in other["items"]]:
            raise ConfigError(f"{domain['domain']}: the recordings are not the same")
        words = [item["words"] for item in items]
        for name, errors in _errors(domain).items():
            if name in _errors(other):
                theirs = _errors(other)[name]
                more = difference(theirs, errors, words)
                value, low, high = (100 * part for part in (more.value, more.low, more.high))
                yield (
                    f"| {domain['domain']} | {len(items)} | {name} "
                    f"| {100 * sum(errors) / sum(words):.2f}% "
                    f"| {100 * sum(theirs) / sum(words):.2f}% "
                    f"| {value:+.2f} ({low:+.2f} to {high:+.2f}) |"
                )


def _errors(domain: dict[str, Any]) -> dict[str, list[int]]:
    """Of each recording, by profile."""
    return {
        name: [sum(item["errors"]) for item in found["items"]]
        for name, found in domain["profiles"].items()
    }


if __name__ == "__main__":
    main()
