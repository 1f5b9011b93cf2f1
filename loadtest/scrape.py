"""What a server says of itself at /metrics, and how that changed between two readings."""

from __future__ import annotations

import math
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 10.0
ONLY_GROW = ("counter", "histogram", "summary")

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Scrape:
    """The samples of one reading, or the growth between two."""

    values: Mapping[tuple[str, Labels], float]
    growing: frozenset[str]  # names of samples that only ever grow: counters and histograms

    def has(self, name: str) -> bool:
        """Whether there is a sample of that name."""
        return any(found == name for found, _ in self.values)

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name which have all these labels; 0 where none has."""
        return sum(value for _, value in self._matching(name, labels))

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The samples of that name, summed by the value of one label."""
        sums: dict[str, float] = {}
        for found, value in self._matching(name, labels):
            key = dict(found).get(label, "")
            sums[key] = sums.get(key, 0.0) + value
        return sums

    def labels(self, name: str) -> dict[str, str]:
        """The labels of the first sample of that name, as of an Info."""
        return next((dict(labels) for found, labels in self.values if found == name), {})

    def mean(self, name: str, **labels: str) -> float | None:
        """The mean of a histogram's observations; None where there were none."""
        count = self.total(f"{name}_count", **labels)
        return self.total(f"{name}_sum", **labels) / count if count else None

    def quantile(self, name: str, q: float, **labels: str) -> float | None:
        """A histogram's quantile as Prometheus estimates it: linear within the bucket.

        In the last bucket, which has no end, it is the bucket's beginning. None without
        observations.
        """
        buckets = self.by(f"{name}_bucket", "le", **labels)
        return bucket_quantile({float(le): n for le, n in buckets.items()}, q)

    def _matching(self, name: str, labels: Mapping[str, str]) -> Iterable[tuple[Labels, float]]:
        wanted = set(labels.items())
        return ((ls, v) for (found, ls), v in self.values.items() if found == name and wanted <= ls)


def parse(text: str, only: Iterable[str] = ()) -> Scrape:
    """Reads Prometheus' text format; with `only`, no more than lines that begin with these."""
    if prefixes := tuple(only):
        text = "".join(ln for ln in text.splitlines(keepends=True) if ln.startswith(prefixes))
    values, growing = {}, set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name, frozenset(sample.labels.items())] = float(sample.value)
            if family.type in ONLY_GROW:
                growing.add(sample.name)
    return Scrape(values, frozenset(growing))


def fetch(host: str, only: Iterable[str] = ()) -> Scrape:
    """Reads `host`/metrics. Raises OSError where nothing answers, ValueError for another format."""
    with urllib.request.urlopen(f"{host}/metrics", timeout=TIMEOUT_S) as answer:
        return parse(answer.read().decode(), only)


def growth(before: Scrape, after: Scrape) -> Scrape:
    """How much counters and histograms grew; gauges as they are in `after`.

    One that shrank was restarted in between, and grew by what it has now.
    """
    values = {}
    for key, value in after.values.items():
        earlier = before.values.get(key, 0.0) if key[0] in after.growing else 0.0
        values[key] = value - earlier if value >= earlier else value
    return Scrape(values, after.growing)


def bucket_quantile(cumulative: Mapping[float, float], q: float) -> float | None:
    """The quantile of cumulative counts by upper bound; None where nothing was counted."""
    bounds = sorted(cumulative)
    if not bounds or not cumulative[bounds[-1]]:
        return None
    rank = q * cumulative[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        within = cumulative[bound] - below
        if cumulative[bound] >= rank and within:
            return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / within
        lower, below = bound, cumulative[bound]
    return lower
