"""All that is asked of one encoder, part by part, so that it goes on where it was stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from service.lab.packing import Item
from service.lab.reproduce.ctc import study
from service.lab.reproduce.ctc.claims import Encoder, best_of_all
from service.lab.reproduce.ctc.model import CtcWeights, Thinning, named_tensors
from service.lab.reproduce.ctc.rounding import KINDS, Bits, num_weights, variants
from service.lab.reproduce.ctc.study import Heard, Listener, Moved
from service.lab.reproduce.record import Record, digest

Ways = Mapping[str, Heard]


@dataclass(frozen=True, slots=True)
class Lab:
    """`key`: what every part depends on; `done` is called after each."""

    record: Record
    key: Mapping[str, Any]
    done: Callable[[], object]

    def part(self, key: Mapping[str, Any], find: Callable[[], Any]) -> Any:
        """What is known of it, or else is found now."""
        whole = {**self.key, **key}
        if (known := self.record.read(whole)) is None:
            known = find()
            self.record.write(whole, known)
        self.done()
        return known


@dataclass(frozen=True, slots=True)
class Hall:
    """Windows, and an encoder that hears them."""

    listener: Listener
    digest: str

    def thinned(self, lab: Lab, thinning: Thinning | None) -> Ways:
        part = {"items": self.digest, "thinned": thinning and asdict(thinning)}
        found = lab.part(part, lambda: study.to_json(self.listener.thinned(thinning)))
        return study.heard_from_json(found)

    def rounded(self, lab: Lab, bits: Bits) -> tuple[Moved, Heard]:
        part = {"items": self.digest, "rounded": asdict(bits)}
        found = lab.part(part, lambda: study.to_json(self.listener.rounded(bits)))
        return study.rounded_from_json(found)


def thinnings(num_layers: int, upper: int, kernel: int) -> list[Thinning]:
    """Those that are tried whatever comes of them."""
    taps = study.with_other_taps(num_layers - upper, num_layers) if kernel > 1 else []
    return study.halves(num_layers) + taps


def num_parts(num_layers: int, upper: int, kernel: int) -> int:
    """At most."""
    return 2 * (len(thinnings(num_layers, upper, kernel)) + 4) + 1 + len(variants())


def look_into(
    name: str,
    weights: CtcWeights,
    steps: int,
    windows: tuple[Sequence[Item], Sequence[Item]],
    num_mels: int,
    lab: Lab,
) -> Encoder:
    """`windows`: to report on, and of the speakers held back, to choose on."""
    lab = replace(lab, key={**lab.key, "encoder": fingerprint(weights)})
    own, held = (Hall(Listener(weights, some, num_mels), digest(some)) for some in windows)
    dense = own.thinned(lab, None)[study.PLAIN]
    asked = thinnings(len(weights.encoder.layers), len(weights.modules), weights.kernel)
    tuned = {thinning: held.thinned(lab, thinning) for thinning in asked}
    found = Encoder(name, weights.kernel, steps, dense, {}, tuned, {}, {})
    best = best_of_all(found)
    further = study.fewer_and_more(study.choice_of(best), best.layer)
    tuned |= {thinning: held.thinned(lab, thinning) for thinning in further}
    return replace(
        found,
        dropped={thinning: own.thinned(lab, thinning) for thinning in (*asked, *further)},
        tuned=tuned,
        rounded={bits: own.rounded(lab, bits) for bits in variants()},
        sizes={kind: num_weights(weights, kind) for kind in KINDS},
    )


def fingerprint(weights: CtcWeights) -> str:
    """Of every tensor."""
    found = hashlib.sha256()
    for at, tensor in named_tensors(weights).items():
        found.update(at.encode())
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()[:20]
