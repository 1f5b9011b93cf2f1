"""An encoder whose weights are rounded to few bits, by kind of module; it computes in float32."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from service.lab.reproduce.bits.rounding import ATTENTION, FEED_FORWARD, round_rows
from service.lab.reproduce.ctc.model import CtcWeights, mapped, named_tensors

MODULE = "module"  # the Conformer's, or what stands in its place without neighbours
KINDS = (MODULE, ATTENTION, FEED_FORWARD)
PLACES = {MODULE: ".modules.", ATTENTION: ".attention.", FEED_FORWARD: ".mlp."}
WIDTHS = (8, 4)


@dataclass(frozen=True, slots=True)
class Bits:
    """`kinds` have weights of so many bits, symmetric, with a scale for each row; of `taps`, for
    each channel."""

    kinds: tuple[str, ...]
    width: int

    @property
    def name(self) -> str:
        return f"{' + '.join(self.kinds)}: {self.width} bits"


def variants() -> list[Bits]:
    """Each kind by itself, each pair, and all, in each width."""
    alone = [(kind,) for kind in KINDS]
    pairs = [(MODULE, ATTENTION), (MODULE, FEED_FORWARD), (ATTENTION, FEED_FORWARD)]
    return [Bits(kinds, width) for width in WIDTHS for kinds in (*alone, *pairs, KINDS)]


def rounded(weights: CtcWeights, bits: Bits) -> CtcWeights:
    """The same encoder, rounded in the layers that have a module: below them, and norms, biases and
    head, all is as it was."""
    chosen = _of_kinds(weights, bits.kinds)

    def change(at: str, tensor: Tensor) -> Tensor:
        if at not in chosen:
            return tensor
        return round_rows(tensor.flatten(1), bits.width).view_as(tensor)

    return mapped(weights, change)


def num_weights(weights: CtcWeights, kind: str) -> int:
    """That are rounded of a kind."""
    return sum(tensor.numel() for tensor in _of_kinds(weights, (kind,)).values())


def _of_kinds(weights: CtcWeights, kinds: tuple[str, ...]) -> dict[str, Tensor]:
    below = tuple(f".encoder.layers.{number}." for number in range(weights.lower))
    return {
        at: tensor
        for at, tensor in named_tensors(weights).items()
        if tensor.dim() > 1
        and any(PLACES[kind] in at for kind in kinds)
        and not at.startswith(below)
    }
