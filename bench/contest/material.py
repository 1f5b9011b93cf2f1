"""What the contestants read: kinds of clips of a corpus' test split, and files to pass them in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.errors import ConfigError
from service.lab.material import Material, of_corpus, parse_domain
from service.lab.packing import Item, evenly, to_float

SHORT_S = 6.0
KINDS = {
    "full": "windows of 18 to 30 s, utterances of one speaker joined",
    "clips": "utterances as they are",
    "short": f"utterances of less than {SHORT_S:g} s",
}


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
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"kind {kind!r}: use some of {', '.join(KINDS)}")
        material = Material(of_corpus(corpus), "test")
        packed = "-packed" if kind == "full" else ""
        items = material.items(parse_domain(domain + packed))
        if kind == "short":
            items = [item for item in items if item.seconds < SHORT_S]
        items = evenly(items, limit)
        file = work / f"{kind}.npz"
        np.savez(file, *(to_float(item.pcm) for item in items))
        found.append(Clips(kind, tuple(items), file))
    return found
