"""Keys and values of the windows being decoded, in rows that stay packed.

A row is one window, or one sequence of a window's beam. Rows `[0, num_rows)` are in use; a row that
leaves is overwritten by the last one, so every step works on views, never on gathered copies. What
an earlier window left in a row is zeroed: masked positions still multiply, and NaN times zero is
NaN. Cross-attention keys live in pools by kept length: windows of different profiles share a step,
and none pays for another's padding. What a window kept is held once, however many rows it has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model.layers import merge_heads
from service.model.weights import CrossAttention, DecoderWeights

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

    def join(
        self,
        crosses: Sequence[CrossAttention],
        states_BTD: Tensor,
        log_weights_BT: Tensor | None = None,
    ) -> None:
        """As `cache.Cache` has it."""
        num_windows, kept, _ = states_BTD.shape
        places = self.append(kept, num_windows, log_weights_BT)
        for (pool, entry), states_TD in zip(places, states_BTD, strict=True):
            for number, cross in enumerate(crosses):
                # A transposed copy is fast where both sides are whole matrices.
                pool.keys[number, entry].flatten(0, 1).copy_(cross.key(states_TD).T)
                pool.values[number, entry].flatten(0, 1).copy_(cross.value(states_TD).T)

    def reading(self, first_row: int, num_new: int) -> PackedReading:
        """For the rows from `first_row` on, where they stand now."""
        lengths = self.lengths[first_row:]
        longest = max(lengths) + num_new
        self.reserve(longest)
        rows_B1, starts_B1, members = self.places_from(first_row)
        positions_BN = starts_B1
        if num_new > 1:
            positions_BN = starts_B1 + torch.arange(num_new, device=starts_B1.device)
        level = num_new == 1 and min(lengths) == max(lengths)
        rows = slice(first_row, self.num_rows)
        mask = None if level else _mask(self.keys.dtype, positions_BN, longest)
        return PackedReading(self, rows, rows_B1, positions_BN, members, longest, mask)

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


@dataclass(slots=True, eq=False)
class PackedReading:
    """`cache.Reading` of packed rows: `rows` of the cache, which then hold `longest` tokens."""

    cache: DecodeCache
    rows: slice
    rows_B1: Tensor
    positions_BN: Tensor
    members: Sequence[Member]
    longest: int
    mask: Tensor | None

    def attend(self, layer: int, query_BHNK: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.rows_B1, :, self.positions_BN] = key.transpose(1, 2)
        values[self.rows_B1, :, self.positions_BN] = value.transpose(1, 2)
        near = (self.rows, slice(None), slice(self.longest))
        return merge_heads(
            F.scaled_dot_product_attention(query_BHNK, keys[near], values[near], self.mask)
        )

    def attend_across(self, layer: int, query_BHNK: Tensor) -> Tensor:
        return merge_heads(_cross_attend(query_BHNK, self.members, layer))


def _mask(dtype: torch.dtype, positions_BN: Tensor, longest: int) -> Tensor:
    """What a new token may not attend to, as -inf: (B, 1, N, longest)."""
    ahead = torch.arange(longest, device=positions_BN.device) > positions_BN[..., None]
    zeros = torch.zeros(ahead.shape, dtype=dtype, device=positions_BN.device)
    return zeros.masked_fill_(ahead, -torch.inf)[:, None]


def _cross_attend(query_BHNK: Tensor, members: Sequence[Member], layer: int) -> Tensor:
    """Plain products: with few queries there is no matrix that a fused kernel would save, and these
    read the keys and values at the speed of memory."""
    scale = 1 / math.sqrt(query_BHNK.shape[-1])
    context_BHNK = torch.empty_like(query_BHNK)
    for places, shared, keys, values, log_weights in members:
        some_BHNK = query_BHNK if places is None else query_BHNK[places]
        rows, heads, new, width = some_BHNK.shape
        if shared:  # rows are queries of the same keys
            queries = some_BHNK.transpose(0, 1).reshape(heads, rows * new, width)
        else:
            queries = some_BHNK.reshape(rows * heads, new, width)
        queries = queries.to(keys[layer].dtype)
        if log_weights is None:
            logits = torch.baddbmm(queries.new_zeros(()), queries, keys[layer], beta=0, alpha=scale)
        else:
            logits = torch.baddbmm(log_weights, queries, keys[layer], alpha=scale)
        found = torch.bmm(logits.softmax(-1), values[layer].mT).to(query_BHNK.dtype)
        if shared:
            found_BHNK = found.view(heads, rows, new, width).transpose(0, 1)
        else:
            found_BHNK = found.view(rows, heads, new, width)
        if places is None:
            return found_BHNK
        context_BHNK[places] = found_BHNK
    return context_BHNK


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
