"""Keys and values of the windows being decoded, in rows that stay packed.

A row is one window, or one sequence of a window's beam. Rows `[0, num_rows)` are in use; a row that
leaves is overwritten by the last one, so every step works on views, never on gathered copies. What
an earlier window left in a row is zeroed: masked positions still multiply, and NaN times zero is
NaN. What windows kept is apart (`kept`), and is held once, however many rows a window has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from service.decode.kept import Kept, Queries, Window
from service.model.cache import EveryRow
from service.model.layers import merge_heads
from service.model.weights import CrossAttention, DecoderWeights
from service.types import ACROSS, ATTENTION, FEED, OpenModules

TOKENS_AT_ONCE = 64  # by which rows grow: few windows say as much as a context holds


class Places(NamedTuple):
    """Where some rows stand, on the device: their numbers (B, 1), the position of the next token of
    each (B, 1), and what they read of their windows; `gated`: None where every row runs every
    module."""

    rows_B1: Tensor
    starts_B1: Tensor
    queries: Queries
    gated: Gated | None


@dataclass(frozen=True, slots=True, eq=False)
class Gated:
    """Which rows run which modules: `rows[layer][module]`, numbers among those that are read; None:
    all. `queries`: of some rows' windows, by their numbers."""

    rows: tuple[tuple[tuple[int, ...] | None, ...], ...]
    queries: Mapping[tuple[int, ...], Queries]


@dataclass(slots=True)
class DecodeCache:
    """All state of a decode batch that lives on the device.

    `keys`, `values`: (L, capacity, H, tokens, K), self-attention; both capacities grow.
    `lengths[row]`: tokens already in the row; `windows[row]`: what it reads of `kept`. `places`:
    of all rows, None where they are not what they were: a step after another has nothing to tell
    the device.
    """

    keys: Tensor
    values: Tensor
    kept: Kept
    lengths: list[int] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    places: Places | None = None

    @property
    def num_rows(self) -> int:
        return len(self.lengths)

    def join(
        self,
        crosses: Sequence[CrossAttention],
        states_BTD: Tensor,
        log_weights_BT: Tensor | None = None,
        gates: Sequence[OpenModules | None] = (),
    ) -> None:
        """As `cache.Cache` has it."""
        nothing = [None] * len(states_BTD)
        weights = nothing if log_weights_BT is None else log_weights_BT
        for states_TD, log_weights_T, opens in zip(
            states_BTD, weights, gates or nothing, strict=True
        ):
            window = self.kept.take(crosses, states_TD, log_weights_T, opens)
            self._add_row(window)

    def reading(self, first_row: int, num_new: int) -> PackedReading:
        """For the rows from `first_row` on, where they stand now."""
        lengths = self.lengths[first_row:]
        longest = max(lengths) + num_new
        self.reserve(longest)
        rows_B1, starts_B1, queries, gated = self._places_from(first_row)
        positions_BN = starts_B1
        if num_new > 1:
            positions_BN = starts_B1 + torch.arange(num_new, device=starts_B1.device)
        level = num_new == 1 and min(lengths) == max(lengths)
        rows = slice(first_row, self.num_rows)
        mask = None if level else _mask(self.keys.dtype, positions_BN, longest)
        return PackedReading(self, rows, rows_B1, positions_BN, queries, longest, mask, gated)

    def _places_from(self, first_row: int) -> Places:
        """Where the rows from `first_row` on stand."""
        if first_row == 0 and self.places is not None:
            return self.places
        device = self.keys.device
        rows_B1 = torch.arange(first_row, self.num_rows, device=device)[:, None]
        starts_B1 = torch.tensor(self.lengths[first_row:], device=device)[:, None]
        windows = self.windows[first_row:]
        places = Places(rows_B1, starts_B1, self.kept.queries(windows), self._gated(windows))
        self.places = places if first_row == 0 else None
        return places

    def _gated(self, windows: Sequence[Window]) -> Gated | None:
        if all(window.gates is None for window in windows):
            return None
        every = tuple(range(len(windows)))
        found: list[tuple[tuple[int, ...] | None, ...]] = []
        for layer in range(len(self.keys)):
            running = [
                tuple(row for row in every if windows[row].runs(layer, module))
                for module in (ATTENTION, ACROSS, FEED)
            ]
            found.append(tuple(None if rows == every else rows for rows in running))
        wanted = {layer[ACROSS] for layer in found} - {None, ()}
        queries = {
            rows: self.kept.queries([windows[row] for row in rows]) for rows in wanted if rows
        }
        return Gated(tuple(found), queries)

    def advance(self, first_row: int, num_tokens: int) -> None:
        """The rows from `first_row` on have read so many tokens more."""
        self.lengths[first_row:] = [length + num_tokens for length in self.lengths[first_row:]]
        if self.places is not None:
            later = self.places._replace(starts_B1=self.places.starts_B1 + num_tokens)
            self.places = later if first_row == 0 else None

    def _add_row(self, window: Window) -> int:
        self.places = None
        row = self.num_rows
        if row == self.keys.shape[1]:
            self.keys, self.values = _longer(self.keys, 1, row), _longer(self.values, 1, row)
        self.keys[:, row] = 0
        self.values[:, row] = 0
        self.lengths.append(0)
        self.windows.append(window)
        return row

    def reserve(self, num_tokens: int) -> None:
        """Makes room for so many tokens in every row."""
        missing = num_tokens - self.keys.shape[3]
        if missing > 0:
            more = -(-missing // TOKENS_AT_ONCE) * TOKENS_AT_ONCE
            self.keys = _longer(self.keys, 3, more)
            self.values = _longer(self.values, 3, more)

    def fork(self, source: int) -> int:
        """Adds a row that holds what `source` holds, and returns its number."""
        used, window = self.lengths[source], self.windows[source]
        window.rows += 1
        row = self._add_row(window)
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
        self.places = None
        self.lengths[first_row:] = [0] * (self.num_rows - first_row)

    def remove(self, row: int) -> None:
        """Frees a row; the last row takes its number."""
        self.places = None
        last = self.num_rows - 1
        self.kept.leave(self.windows[row])
        if row != last:
            used = self.lengths[last]
            self.keys[:, row, :, :used] = self.keys[:, last, :, :used]
            self.values[:, row, :, :used] = self.values[:, last, :, :used]
            self.keys[:, row, :, used:] = 0
            self.values[:, row, :, used:] = 0
            self.lengths[row] = self.lengths[last]
            self.windows[row] = self.windows[last]
        self.lengths.pop()
        self.windows.pop()


def empty_cache(weights: DecoderWeights, capacity: int = 4) -> DecodeCache:
    """A cache with no rows, on the weights' device and in their type. It grows as rows join and
    speak."""
    heads, width = weights.heads, weights.positions_TD.shape[1]
    shape = (len(weights.layers), capacity, heads, TOKENS_AT_ONCE, width // heads)
    # Zeros, not garbage: masked positions still multiply, and NaN times zero is NaN.
    keys, values = weights.positions_TD.new_zeros(shape), weights.positions_TD.new_zeros(shape)
    return DecodeCache(keys, values, Kept(weights))


@dataclass(slots=True, eq=False)
class PackedReading(EveryRow):
    """`cache.Reading` of packed rows: `rows` of the cache, which then hold `longest` tokens.

    `keys`, `values`: theirs by layer, views of what the cache holds. All layers' views are made at
    once: a step of few rows waits for the number of its calls.
    """

    cache: DecodeCache
    rows: slice
    rows_B1: Tensor
    positions_BN: Tensor
    queries: Queries
    longest: int
    mask: Tensor | None
    gated: Gated | None = None
    keys: Sequence[Tensor] = field(init=False)
    values: Sequence[Tensor] = field(init=False)
    _some: dict[tuple[int, ...], SomeRows] = field(default_factory=dict)

    def __post_init__(self) -> None:
        near = (slice(None), self.rows, slice(None), slice(self.longest))
        self.keys, self.values = self.cache.keys[near].unbind(0), self.cache.values[near].unbind(0)

    def among(self, layer: int, module: int) -> PackedReading | None:
        rows = None if self.gated is None else self.gated.rows[layer][module]
        if rows is None:
            return self
        if rows and rows not in self._some:
            self._some[rows] = self._of(rows)
        return self._some.get(rows)

    def _of(self, rows: tuple[int, ...]) -> SomeRows:
        chosen_R = torch.tensor(rows, device=self.rows_B1.device)
        rows_R1 = self.rows_B1[chosen_R]
        # Rows that run no cross-attention alone read nothing of their windows.
        queries = self.gated.queries.get(rows, self.queries) if self.gated else self.queries
        return SomeRows(
            self.cache,
            self.rows,
            rows_R1,
            self.positions_BN[chosen_R],
            queries,
            self.longest,
            None if self.mask is None else self.mask[chosen_R],
            chosen_R=chosen_R,
        )

    def attend(self, layer: int, query_BHNK: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self.keys[layer], self.values[layer]
        if self.mask is None:  # all rows stand at one place, the last: no index is followed
            keys[:, :, -1:], values[:, :, -1:] = key, value
        else:
            self._keep(layer, key, value)
        return merge_heads(F.scaled_dot_product_attention(query_BHNK, keys, values, self.mask))

    def _keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        at = (self.rows_B1, slice(None), self.positions_BN)
        self.cache.keys[layer][at] = key.transpose(1, 2)
        self.cache.values[layer][at] = value.transpose(1, 2)

    def attend_across(self, layer: int, query_BHNK: Tensor) -> Tensor:
        return self.cache.kept.attend(layer, query_BHNK, self.queries)


@dataclass(slots=True, eq=False)
class SomeRows(PackedReading):
    """`chosen_R`: which of the rows that are read. They lie apart: their keys are copied."""

    chosen_R: Tensor = field(kw_only=True)

    def __post_init__(self) -> None:
        self.keys = self.values = ()

    def pick(self, x_BND: Tensor) -> Tensor:
        return x_BND[self.chosen_R]

    def add(self, x_BND: Tensor, found: Tensor) -> Tensor:
        return x_BND.index_add(0, self.chosen_R, found)

    def attend(self, layer: int, query_BHNK: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self._keep(layer, key, value)
        near = (self.rows_B1[:, 0], slice(None), slice(self.longest))
        keys, values = self.cache.keys[layer][near], self.cache.values[layer][near]
        return merge_heads(F.scaled_dot_product_attention(query_BHNK, keys, values, self.mask))


def _mask(dtype: torch.dtype, positions_BN: Tensor, longest: int) -> Tensor:
    """What a new token may not attend to, as -inf: (B, 1, N, longest)."""
    ahead = torch.arange(longest, device=positions_BN.device) > positions_BN[..., None]
    zeros = torch.zeros(ahead.shape, dtype=dtype, device=positions_BN.device)
    return zeros.masked_fill_(ahead, -torch.inf)[:, None]


def _longer(cached: Tensor, dim: int, more: int) -> Tensor:
    """With `more` places along a dimension, zeros."""
    shape = list(cached.shape)
    shape[dim] = more
    return torch.cat([cached, cached.new_zeros(shape)], dim)
