"""Sums of a table's rows, each times a weight of its own: many bags of rows in one call.

What one query reads of a window is two such sums, of its keys over their channels and of its values
over their frames. `embedding_bag`, which reads the tables of recommender systems, takes bags of
any sizes side by side, and tables in 8 bits: a quarter of the bytes of float32 to hold and to read,
where reading them is what a decode step waits for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model.operators.products import direct

SCALE_AND_ZERO = 8  # bytes of float32 at the end of a row in 8 bits
BYTE = "8 bits"


class Bag(NamedTuple):
    """Rows of a table, int32: the bags' `indices` one after the other, and where each begins."""

    indices: Tensor
    offsets: Tensor


class Bags(Protocol):
    """How a table's rows are held. `dtype`: of weights and sums."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def name(self) -> str:
        """For people."""

    def row_bytes(self, width: int) -> int:
        """Of a row of so many values."""

    def new_table(self, num_rows: int, width: int, device: torch.device) -> Tensor:
        """(num_rows, a row as it is held), of anything."""

    def rows(self, values: Tensor) -> Tensor:
        """(n, width) -> (n, a row as it is held)."""

    def sums(self, table: Tensor, bag: Bag, weights: Tensor) -> Tensor:
        """One weight for each index -> (bags, width)."""


@dataclass(frozen=True, slots=True)
class FloatBags:
    """Rows as they are, in `dtype`."""

    dtype: torch.dtype

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def row_bytes(self, width: int) -> int:
        return width * self.dtype.itemsize

    def new_table(self, num_rows: int, width: int, device: torch.device) -> Tensor:
        return torch.empty(num_rows, width, dtype=self.dtype, device=device)

    def rows(self, values: Tensor) -> Tensor:
        return values.to(self.dtype)

    def sums(self, table: Tensor, bag: Bag, weights: Tensor) -> Tensor:
        return F.embedding_bag(
            bag.indices, table, bag.offsets, mode="sum", per_sample_weights=weights
        )


@dataclass(frozen=True, slots=True)
class ByteBags:
    """Rows in steps of a 255th between their least and their largest value. Operators of FBGEMM,
    private to torch; a row that is not finite is NaN."""

    dtype: torch.dtype = torch.float32
    name: str = BYTE

    def row_bytes(self, width: int) -> int:
        return width + SCALE_AND_ZERO

    def new_table(self, num_rows: int, width: int, device: torch.device) -> Tensor:
        return torch.empty(num_rows, self.row_bytes(width), dtype=torch.uint8, device=device)

    def rows(self, values: Tensor) -> Tensor:
        values = values.float()
        held: Tensor = torch.ops.quantized.embedding_bag_byte_prepack(values)
        if not bool(values.sum().isfinite()):
            scales = held[:, -SCALE_AND_ZERO:].view(torch.float32)
            scales[~values.isfinite().all(1)] = torch.nan
        return held

    def sums(self, table: Tensor, bag: Bag, weights: Tensor) -> Tensor:
        return direct("embedding_bag_byte_rowwise_offsets")(
            table, bag.indices, bag.offsets, False, 0, False, weights, None, False
        )
