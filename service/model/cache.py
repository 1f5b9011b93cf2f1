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

TOKENS_AT_ONCE = 64  # by which rows grow: few windows say as much as a context holds


@dataclass(slots=True)
class CrossPool:
    """Cross-attention keys and values of the windows that kept the same number of frames.

    `keys`, `values`: (L, capacity, H, K, k), frames last: one query's products with them then
    read memory in order. Entry i belongs to the decode row `rows[i]`. `log_weights`: for each
    entry the logarithms (k,) of how many frames each state counts as; empty where all count as
    one.
    """

    keys: Tensor
    values: Tensor
    rows: list[int] = field(default_factory=list)
    log_weights: list[Tensor] = field(default_factory=list)

    def remove(self, row: int) -> None:
        entry, last = self.rows.index(row), len(self.rows) - 1
        if entry != last:
            self.keys[:, entry] = self.keys[:, last]
            self.values[:, entry] = self.values[:, last]
            self.rows[entry] = self.rows[last]
        self.rows.pop()
        if self.log_weights:
            self.log_weights[entry] = self.log_weights[last]
            self.log_weights.pop()


@dataclass(slots=True)
class DecodeCache:
    """All state of a decode batch that lives on the device.

    `keys`, `values`: (L, capacity, H, tokens, K), self-attention; both capacities grow.
    `lengths[row]`: tokens already in the row; `pools`: cross-attention in
    `cross_dtype`, by kept length and whether states have weights.
    """

    keys: Tensor
    values: Tensor
    cross_dtype: torch.dtype
    lengths: list[int] = field(default_factory=list)
    pools: dict[tuple[int, bool], CrossPool] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        return len(self.lengths)

    def append(
        self, kept: int, num: int = 1, log_weights_BT: Tensor | None = None
    ) -> tuple[CrossPool, int]:
        """Adds rows for windows that kept so many frames, each counting as one or as it is said.

        Returns their pool and the first of their entries in it: what is there is the caller's
        to write.
        """
        first = self.num_rows
        _make_room(self, first, num)
        kind = (kept, log_weights_BT is not None)
        if kind not in self.pools:
            layers, _, heads, _, width = self.keys.shape
            empty = self.keys.new_empty((layers, num, heads, width, kept), dtype=self.cross_dtype)
            self.pools[kind] = CrossPool(empty, torch.empty_like(empty))
        pool = self.pools[kind]
        _make_room(pool, len(pool.rows), num)
        self.keys[:, first : first + num] = 0
        self.values[:, first : first + num] = 0
        entry = len(pool.rows)
        pool.rows += range(first, first + num)
        if log_weights_BT is not None:
            pool.log_weights += log_weights_BT.to(self.cross_dtype).unbind()
        self.lengths += [0] * num
        return pool, entry

    def reserve(self, num_tokens: int) -> None:
        """Makes room for so many tokens in every row."""
        missing = num_tokens - self.keys.shape[3]
        if missing > 0:
            more = -(-missing // TOKENS_AT_ONCE) * TOKENS_AT_ONCE
            self.keys = _longer(self.keys, 3, more)
            self.values = _longer(self.values, 3, more)

    def fork(self, source: int) -> int:
        """Adds a row that holds what `source` holds, and returns its number.

        Its cross-attention keys and values are copied too, so that every row of a pool is read
        in one piece, and a window of one row pays nothing for those of more.
        """
        (kept, _), pool = next(item for item in self.pools.items() if source in item[1].rows)
        used, held = self.lengths[source], pool.rows.index(source)
        weights_1T = pool.log_weights[held][None] if pool.log_weights else None
        pool, entry = self.append(kept, 1, weights_1T)
        pool.keys[:, entry] = pool.keys[:, held]
        pool.values[:, entry] = pool.values[:, held]
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
        for kind, pool in list(self.pools.items()):
            if row in pool.rows:
                pool.remove(row)
            if not pool.rows:
                del self.pools[kind]
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


def empty_cache(weights: DecoderWeights, capacity: int = 4) -> DecodeCache:
    """A cache with no rows, on the weights' device and in their type. It grows as rows join and
    speak."""
    heads, width = weights.heads, weights.positions_TD.shape[1]
    shape = (len(weights.layers), capacity, heads, TOKENS_AT_ONCE, width // heads)
    # Zeros, not garbage: masked positions still multiply, and NaN times zero is NaN.
    keys, values = weights.positions_TD.new_zeros(shape), weights.positions_TD.new_zeros(shape)
    return DecodeCache(keys, values, weights.cross_dtype)


def _make_room(cached: CrossPool | DecodeCache, held: int, num: int) -> None:
    """For `num` rows or entries beside those `held`, and for as many again as there are."""
    missing = held + num - cached.keys.shape[1]
    if missing > 0:
        cached.keys = _longer(cached.keys, 1, max(missing, held))
        cached.values = _longer(cached.values, 1, max(missing, held))


def _longer(cached: Tensor, dim: int, more: int) -> Tensor:
    """With `more` places along a dimension, zeros."""
    shape = list(cached.shape)
    shape[dim] = more
    return torch.cat([cached, cached.new_zeros(shape)], dim)
