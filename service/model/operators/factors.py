"""Products through fewer dimensions than they have, as LiteASR makes them (arXiv 2502.20583)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from service.model.operators.products import Product


@dataclass(frozen=True, slots=True, eq=False)
class Factored:
    """`outer(inner(x))`: (..., in) -> (..., rank) -> (..., out)."""

    inner: Product
    outer: Product

    @property
    def shape(self) -> tuple[int, int]:
        return (self.outer.shape[0], self.inner.shape[1])

    @property
    def nbytes(self) -> int:
        return self.inner.nbytes + self.outer.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))


def num_weights(product: Product) -> int:
    """That a row is multiplied with: of factors fewer than (out, in) says."""
    if isinstance(product, Factored):
        return num_weights(product.inner) + num_weights(product.outer)
    if isinstance(product, SideBySide):
        return sum(map(num_weights, product.parts))
    return product.shape[0] * product.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class SideBySide:
    """Several of one input, their outputs one after the other: (..., in) -> (..., sum of out)."""

    parts: tuple[Product, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return (sum(part.shape[0] for part in self.parts), self.parts[0].shape[1])

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=-1)
