"""Keys and values of the windows being decoded, in rows that stay packed.

A row is one window, or one sequence of a window's beam. Rows `[0, num_rows)` are in use; a row that
leaves is overwritten by the last one, so every step works on views, never on gathered copies. What
an earlier window left in a row is zeroed: masked positions still multiply, and NaN times zero is
NaN. Cross-attention keys live in pools by kept length: windows of different profiles share a step,
and none pays for another's padding. What a window kept is held once, however many rows it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from service.model.weights import DecoderWeights

TOKENS_AT_ONCE = 64  # by which rows grow: few windows say as much as a context holds


# That a pool has places for on a CPU. A product reads them in one call; a place that nothing was
# written to takes no memory, and growing would hold what there was twice.
POOL_WINDOWS = 8


@dataclass(slots=True, eq=False)
class CrossPool:
    """Cross-attention keys and values of some windows that kept the same number of frames.

    `keys`, `values`: (L, capacity, H, K, k), frames last: one query's products with them then
    read memory in order. Entry i belongs to the decode row `rows[i]`, or, where the pool is
    `shared`, its only one to all of them. `log_weights`: for each entry the logarithms (k,) of how
    many frames each state counts as; empty where all count as one.
    """

    keys: Tensor
    values: Tensor
    shared: bool = False
    rows: list[int] = field(default_factory=list)
    log_weights: list[Tensor] = field(default_factory=list)

    @property
    def kept(self) -> int:
        return self.keys.shape[-1]

    def remove(self, row: int) -> None:
        entry, last = self.rows.index(row), len(self.rows) - 1
        if not self.shared and entry != last:
            self.keys[:, entry] = self.keys[:, last]
            self.values[:, entry] = self.values[:, last]
        if not self.shared and self.log_weights:
            self.log_weights[entry] = self.log_weights[last]
            self.log_weights.pop()
        self.rows[entry] = self.rows[last]
        self.rows.pop()


class Member(NamedTuple):
    """A pool's rows from some row on (counted from there; None: all of them, in order), what they
    read in each layer, (B * H, K, T), and what is added to their logits, (B * H, 1, T). `shared`:
    all rows read the same, (H, K, T) and (1, 1, T)."""

    places: Tensor | None
    shared: bool
    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    log_weights: Tensor | None


class Places(NamedTuple):
    """Where some rows stand, on the device: their numbers (B, 1), the position of the next token of
    each (B, 1), and the pools that they read."""

    rows_B1: Tensor
    starts_B1: Tensor
    members: Sequence[Member]


@dataclass(slots=True)
class DecodeCache:
    """All state of a decode batch that lives on the device.

    `keys`, `values`: (L, capacity, H, tokens, K), self-attention; both capacities grow.
    `lengths[row]`: tokens already in the row; `pools`: cross-attention in `cross_dtype`, those of
    one kept length together. `places`: of all rows, None where they are not what they were: a step
    after another has nothing to tell the device.
    """

    keys: Tensor
    values: Tensor
    cross_dtype: torch.dtype
    lengths: list[int] = field(default_factory=list)
    pools: list[CrossPool] = field(default_factory=list)
    places: Places | None = None

    @property
    def num_rows(self) -> int:
        return len(self.lengths)

    def append(
        self, kept: int, num: int = 1, log_weights_BT: Tensor | None = None
    ) -> list[tuple[CrossPool, int]]:
        """Adds rows for windows that kept so many frames, each counting as one or as it is said.

        Returns each one's pool and entry in it: what is there is the caller's to write.
        """
        first = self.num_rows
        self._add_rows(num)
        weights = None if log_weights_BT is None else log_weights_BT.to(self.cross_dtype)
        places = []
        for number in range(num):
            pool = self._pool_for(kept, weights is not None)
            places.append((pool, len(pool.rows)))
            pool.rows.append(first + number)
            if weights is not None:
                pool.log_weights.append(weights[number])
        return places

    def places_from(self, first_row: int) -> Places:
        """Where the rows from `first_row` on stand."""
        if first_row == 0 and self.places is not None:
            return self.places
        device = self.keys.device
        rows_B1 = torch.arange(first_row, self.num_rows, device=device)[:, None]
        starts_B1 = torch.tensor(self.lengths[first_row:], device=device)[:, None]
        places = Places(rows_B1, starts_B1, self._members(first_row))
        self.places = places if first_row == 0 else None
        return places

    def advance(self, first_row: int, num_tokens: int) -> None:
        """The rows from `first_row` on have read so many tokens more."""
        self.lengths[first_row:] = [length + num_tokens for length in self.lengths[first_row:]]
        if self.places is not None:
            later = self.places._replace(starts_B1=self.places.starts_B1 + num_tokens)
            self.places = later if first_row == 0 else None

    def _members(self, first_row: int) -> list[Member]:
        """For each pool with rows from `first_row` on.

        Rows join at the end of both the cache and their pool, so a pool's share is a slice.
        """
        members, heads = [], self.keys.shape[2]
        for pool in self.pools:
            old = sum(row < first_row for row in pool.rows)
            if rows := pool.rows[old:]:
                entries = slice(0, 1) if pool.shared else slice(old, old + len(rows))
                places = None
                if rows != list(range(first_row, self.num_rows)):
                    places = torch.tensor(rows, device=self.keys.device) - first_row
                log_weights = None
                if pool.log_weights:
                    stacked = torch.stack(pool.log_weights[entries])
                    each = 1 if pool.shared else heads
                    log_weights = stacked.repeat_interleave(each, dim=0)[:, None]
                keys = pool.keys[:, entries].flatten(1, 2).unbind()
                values = pool.values[:, entries].flatten(1, 2).unbind()
                members.append(Member(places, pool.shared, keys, values, log_weights))
        return members

    def _add_rows(self, num: int) -> None:
        self.places = None
        first = self.num_rows
        _make_room(self, first, num)
        self.keys[:, first : first + num] = 0
        self.values[:, first : first + num] = 0
        self.lengths += [0] * num

    def _pool_for(self, kept: int, weighed: bool) -> CrossPool:
        """One with a free place."""
        on_cpu = self.keys.device.type == "cpu"
        for pool in self.pools:
            if (pool.kept, bool(pool.log_weights), pool.shared) != (kept, weighed, False):
                continue
            if not on_cpu:
                _make_room(pool, len(pool.rows), 1)
            if len(pool.rows) < pool.keys.shape[1]:
                return pool
        layers, _, heads, _, width = self.keys.shape
        shape = (layers, POOL_WINDOWS if on_cpu else 1, heads, width, kept)
        empty = self.keys.new_empty(shape, dtype=self.cross_dtype)
        self.pools.append(CrossPool(empty, torch.empty_like(empty)))
        return self.pools[-1]

    def reserve(self, num_tokens: int) -> None:
        """Makes room for so many tokens in every row."""
        missing = num_tokens - self.keys.shape[3]
        if missing > 0:
            more = -(-missing // TOKENS_AT_ONCE) * TOKENS_AT_ONCE
            self.keys = _longer(self.keys, 3, more)
            self.values = _longer(self.values, 3, more)

    def fork(self, source: int) -> int:
        """Adds a row that holds what `source` holds, and returns its number.

        Both read the same cross-attention keys and values, set apart in a pool of their window.
        """
        pool = next(pool for pool in self.pools if source in pool.rows)
        if not pool.shared:
            pool = self._set_apart(pool, source)
        row, used = self.num_rows, self.lengths[source]
        self._add_rows(1)
        pool.rows.append(row)
        self.keys[:, row, :, :used] = self.keys[:, source, :, :used]
        self.values[:, row, :, :used] = self.values[:, source, :, :used]
        self.lengths[row] = used
        return row

    def _set_apart(self, pool: CrossPool, row: int) -> CrossPool:
        held = slice(entry := pool.rows.index(row), entry + 1)
        keys, values = pool.keys[:, held].clone(), pool.values[:, held].clone()
        apart = CrossPool(keys, values, True, [row], pool.log_weights[held])
        self._leave(pool, row)
        self.pools.append(apart)
        return apart

    def _leave(self, pool: CrossPool, row: int) -> None:
        pool.remove(row)
        if not pool.rows:
            self.pools.remove(pool)

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
        self.places = None
        self.lengths[first_row:] = [0] * (self.num_rows - first_row)

    def remove(self, row: int) -> None:
        """Frees a row; the last row takes its number."""
        self.places = None
        last = self.num_rows - 1
        self._leave(next(pool for pool in self.pools if row in pool.rows), row)
        if row != last:
            used = self.lengths[last]
            self.keys[:, row, :, :used] = self.keys[:, last, :, :used]
            self.values[:, row, :, :used] = self.values[:, last, :, :used]
            self.keys[:, row, :, used:] = 0
            self.values[:, row, :, used:] = 0
            self.lengths[row] = self.lengths[last]
            for pool in self.pools:
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


def row_bytes(weights: DecoderWeights, num_tokens: int) -> int:
    """Of a row that holds so many tokens."""
    width, size = weights.positions_TD.shape[1], weights.positions_TD.element_size()
    return 2 * len(weights.layers) * width * num_tokens * size


def frame_bytes(weights: DecoderWeights) -> int:
    """Of a frame of one window: its state, and keys and values of every layer."""
    width, size = weights.positions_TD.shape[1], weights.positions_TD.element_size()
    return width * (2 * len(weights.layers) * weights.cross_dtype.itemsize + size)


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
