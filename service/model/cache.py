"""Keys and values of the windows being decoded, in rows that stay packed.

A row is one window, or one sequence of a window's beam. Rows `[0, num_rows)` are in use; a row that
leaves is overwritten by the last one, so every step works on views, never on gathered copies. What
an earlier window left in a row is zeroed: masked positions still multiply, and NaN times zero is
NaN. Cross-attention keys live in one pool per kept length: windows of different profiles share a
step, and none pays for another's padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from service.model.weights import DecoderWeights


@dataclass(slots=True)
class CrossPool:
    """Cross-attention keys and values of the windows that kept the same number of frames.

    `keys`, `values`: (L, capacity, H, k, K). Entry i belongs to the decode row `rows[i]`.
    """

    keys: Tensor
    values: Tensor
    rows: list[int] = field(default_factory=list)

    def append(self, keys_LHTK: Tensor, values_LHTK: Tensor, row: int) -> None:
        if len(self.rows) == self.keys.shape[1]:
            self.keys = torch.cat([self.keys, torch.empty_like(self.keys)], dim=1)
            self.values = torch.cat([self.values, torch.empty_like(self.values)], dim=1)
        self.keys[:, len(self.rows)] = keys_LHTK
        self.values[:, len(self.rows)] = values_LHTK
        self.rows.append(row)

    def remove(self, row: int) -> None:
        entry, last = self.rows.index(row), len(self.rows) - 1
        if entry != last:
            self.keys[:, entry] = self.keys[:, last]
            self.values[:, entry] = self.values[:, last]
            self.rows[entry] = self.rows[last]
        self.rows.pop()


@dataclass(slots=True)
class DecodeCache:
    """All state of a decode batch that lives on the device.

    `keys`, `values`: (L, capacity, H, max_tokens, K), self-attention; `lengths[row]`: tokens
    already in the row; `pools`: cross-attention by kept length.
    """

    keys: Tensor
    values: Tensor
    lengths: list[int] = field(default_factory=list)
    pools: dict[int, CrossPool] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        return len(self.lengths)

    def append(self, keys_LHTK: Tensor, values_LHTK: Tensor) -> None:
        """Adds a row for a window with these cross-attention keys and values."""
        row, kept = self.num_rows, keys_LHTK.shape[2]
        if row == self.keys.shape[1]:
            self.keys = torch.cat([self.keys, torch.zeros_like(self.keys)], dim=1)
            self.values = torch.cat([self.values, torch.zeros_like(self.values)], dim=1)
        if kept not in self.pools:
            empty = keys_LHTK.new_empty((keys_LHTK.shape[0], 1, *keys_LHTK.shape[1:]))
            self.pools[kept] = CrossPool(empty, torch.empty_like(empty))
        self.pools[kept].append(keys_LHTK, values_LHTK, row)
        self.keys[:, row] = 0
        self.values[:, row] = 0
        self.lengths.append(0)

    def fork(self, source: int) -> int:
        """Adds a row that holds what `source` holds, and returns its number.

        Its cross-attention keys and values are copied too, so that every row of a pool is read
        in one piece, and a window of one row pays nothing for those of more.
        """
        pool = next(pool for pool in self.pools.values() if source in pool.rows)
        entry, used = pool.rows.index(source), self.lengths[source]
        self.append(pool.keys[:, entry], pool.values[:, entry])
        row = self.num_rows - 1
        self.keys[:, row, :, :used] = self.keys[:, source, :, :used]
        self.values[:, row, :, :used] = self.values[:, source, :, :used]
        self.lengths[row] = used
        return row

    def reorder(self, rows: Sequence[int], sources: Sequence[int]) -> None:
        """Each of `rows` takes what its source held: rows of one window, at one length."""
        if not rows:
            return
        used = self.lengths[rows[0]]
        targets = torch.tensor(rows, device=self.keys.device)
        held = torch.tensor(sources, device=self.keys.device)
        for cached in (self.keys, self.values):
            cached[:, targets, :, :used] = cached[:, held, :, :used]

    def rewind(self, first_row: int) -> None:
        """Rows from `first_row` on have read nothing yet."""
        self.lengths[first_row:] = [0] * (self.num_rows - first_row)

    def remove(self, row: int) -> None:
        """Frees a row; the last row takes its number."""
        last = self.num_rows - 1
        for kept, pool in list(self.pools.items()):
            if row in pool.rows:
                pool.remove(row)
            if not pool.rows:
                del self.pools[kept]
        if row != last:
            used = self.lengths[last]
            self.keys[:, row, :, :used] = self.keys[:, last, :, :used]
            self.values[:, row, :, :used] = self.values[:, last, :, :used]
            self.keys[:, row, :, used:] = 0
            self.values[:, row, :, used:] = 0
            self.lengths[row] = self.lengths[last]
            for pool in self.pools.values():
                pool.rows = [row if r == last else r for r in pool.rows]
        self.lengths.pop()


def empty_cache(weights: DecoderWeights, max_tokens: int, capacity: int = 4) -> DecodeCache:
    """A cache with no rows, on the weights' device and in their type. It grows as rows join."""
    d_model = weights.embedding_VD.shape[1]
    shape = (len(weights.layers), capacity, weights.heads, max_tokens, d_model // weights.heads)
    # Zeros, not garbage: masked positions still multiply, and NaN times zero is NaN.
    return DecodeCache(weights.embedding_VD.new_zeros(shape), weights.embedding_VD.new_zeros(shape))
