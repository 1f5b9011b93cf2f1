"""Runs every query of the dashboard against a Prometheus, and fails if one finds no data.

    python deploy/check_dashboard.py http://127.0.0.1:9090

Needs requests of several profiles in the last minutes, some of them failing and some decoded
again: a series that was never counted is not there. Exit status: 0, or 1 naming what is missing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parent / "grafana" / "dashboards" / "winnow.json"
TIMEOUT_S = 10


def queries(dashboard: Path = DASHBOARD) -> Iterator[tuple[str, str]]:
    """Each panel's title with each of its queries, Grafana's variables still in them."""
    for panel in json.loads(dashboard.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def filled_in(query: str, window: str = "2m") -> str:
    """The query as Grafana would send it for all profiles."""
    return query.replace("$__rate_interval", window).replace("$profile", ".*")


def values(url: str, query: str) -> list[float]:
    """What an instant query finds, NaN (as of a quantile of nothing) left out."""
    asked = urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(f"{url}/api/v1/query?{asked}", timeout=TIMEOUT_S) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return [value for one in found if not math.isnan(value := float(one["value"][1]))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="of Prometheus, as http://127.0.0.1:9090")
    parser.add_argument("--window", default="2m", help="of rates (2m)")
    args = parser.parse_args()
    num_missing = num_asked = 0
    for title, query in queries():
        found = values(args.url.rstrip("/"), filled_in(query, args.window))
        num_asked += 1
        num_missing += not found
        most = f"{len(found):3d} series, highest {max(found):.4g}" if found else "NO DATA"
        print(f"{title:38} {most}")
        if not found:
            print(f"    {query}")
    print(f"{num_asked} queries, {num_missing} without data")
    return 1 if num_missing else 0


if __name__ == "__main__":
    sys.exit(main())
