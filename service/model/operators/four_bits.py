"""Products whose weights are held in 4 bits: half of what 8 take, at the price of unpacking."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model.operators.products import TINY, Dense, Pack, Product

MOST = 7  # of a value, symmetric
GROUPS = (64, 32, 16)  # values of a row that share a scale: as many as divide it
NIBBLE = 4


@dataclass(frozen=True, slots=True, eq=False)
class FourBits:
    """`pairs`: (out, in / 2) uint8, two values in each, the second above; `scales`: (out, groups)
    in float32. Multiplied in `dtype`, after they are unpacked: for products of many rows."""

    pairs: Tensor
    scales: Tensor
    bias: Tensor | None
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int]:
        return (self.pairs.shape[0], 2 * self.pairs.shape[1])

    @property
    def nbytes(self) -> int:
        return self.pairs.nbytes + self.scales.nbytes

    def weight(self) -> Tensor:
        """(out, in) as it is meant, in `dtype`."""
        whole = torch.stack([self.pairs & 15, self.pairs >> NIBBLE], -1)
        values = whole.view(*self.scales.shape, -1).to(self.dtype).sub_(MOST)
        return values.mul_(self.scales[..., None].to(self.dtype)).view(self.shape)

    def __call__(self, x: Tensor) -> Tensor:
        product = F.linear(x.to(self.dtype), self.weight()).to(x.dtype)
        return product if self.bias is None else product.add_(self.bias)


def four_bits(dtype: torch.dtype) -> Pack:
    """Packs to 4 bits, multiplied in `dtype`. Rows of no whole groups of 16 stay as they are."""

    def pack(weight: Tensor, bias: Tensor | None) -> Product:
        group = next((size for size in GROUPS if weight.shape[1] % size == 0), 0)
        if not group:
            return Dense(weight, bias)
        rows = weight.float().view(weight.shape[0], -1, group)
        scales = rows.abs().amax(-1).clamp_min_(TINY).div_(MOST)
        values = (rows / scales[..., None]).round_().add_(MOST).to(torch.uint8)
        low, high = values.view(weight.shape[0], -1, 2).unbind(-1)
        return FourBits(low | (high << NIBBLE), scales, bias, dtype)

    return pack
