"""What the contestants read: kinds of clips of a corpus' test split, and files to pass them in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.command import KINDS
from service.errors import ConfigError
from service.lab.material import Material, of_corpus, parse_domain
from service.lab.packing import Item, evenly, to_float
from service.types import WINDOW_SAMPLES

SHORT_S = 6.0


@dataclass(frozen=True, slots=True)
class Clips:
    """Clips of one kind, and the file in which the sides find them."""

    kind: str
    items: tuple[Item, ...]
    file: Path

    @property
    def seconds(self) -> float:
        return sum(item.seconds for item in self.items)


def clips_of(
    corpus: Path, domain: str, kinds: Sequence[str], limit: int, work: Path
) -> list[Clips]:
    """At most `limit` of each kind, spread over the speakers. Raises ConfigError."""
    found = []
    material = Material(of_corpus(corpus), "test")
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"kind {kind!r}: use some of {', '.join(KINDS)}")
        packed = "-packed" if kind == "full" else ""
        items = material.items(parse_domain(domain + packed))
        if kind == "short":
            items = [item for item in items if item.seconds < SHORT_S]
        found.append(_written(kind, evenly(items, limit), work))
    return found


def hiss(kind: str, count: int, work: Path) -> Clips:
    """Full windows of noise, for weights that hear nothing anyway."""
    loud = np.random.default_rng(0).normal(0, 1000, (count, WINDOW_SAMPLES)).astype(np.int16)
    return _written(kind, [Item(str(n), pcm, "", "en") for n, pcm in enumerate(loud)], work)


def _written(kind: str, items: Sequence[Item], work: Path) -> Clips:
    if not items:
        raise ConfigError(f"there are no clips of the kind {kind!r}")
    file = work / f"{kind}-{len(items)}.npz"
    np.savez(file, *(to_float(item.pcm) for item in items))
    return Clips(kind, tuple(items), file)
