"""What the windows being decoded kept, for cross-attention: keys and values in blocks of frames.

Windows of any kept length stand side by side, and rows read them in one call, whatever each has;
the sequences of a beam read what their window holds once. A block is all heads of 64 frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model.operators.bags import Bag, Bags
from service.model.weights import CrossAttention, DecoderWeights
from service.types import ACROSS, OpenModules

FRAMES = 64  # of a block: more waste more of the last one, fewer read slower
# 16 windows of Whisper's 1,500 frames on a CPU, where what nothing was written to takes no memory;
# elsewhere one.
BLOCKS_ON_CPU, BLOCKS_ELSEWHERE = 16 * 24, 24
QUERIES_AT_ONCE = 64  # rows times new tokens, so that a long prompt's weights stay small


@dataclass(slots=True, eq=False)
class Window:
    """What one window kept, and how many rows read it.

    `key_rows`, `value_rows`: where its rows of the tables are, by head and block. `bias_W`: what
    is added to the logit of each of its blocks' frames, -inf past its last. `gates`: which modules
    run for it; None: all. What cross-attention that does not run would read was never written.
    """

    blocks: list[int]
    key_rows: Tensor
    value_rows: Tensor
    bias_W: Tensor
    rows: int = 1
    gates: OpenModules | None = None

    def runs(self, layer: int, module: int) -> bool:
        return self.gates is None or self.gates.decoder[layer][module]


class Queries(NamedTuple):
    """Some rows' windows, as their queries read them; `row_heads`: which row and head of these each
    bag of keys is for. `slots`: where the bags stand among those of rows as long as the longest;
    None: all have as many."""

    keys: Bag
    values: Bag
    row_heads: Tensor
    slots: Tensor | None
    bias_B1W: Tensor

    def at_once(self, times: int) -> Queries:
        """For so many queries of each row, all rows' first ones first."""
        if times == 1:
            return self
        return self._replace(keys=_repeat(self.keys, times), values=_repeat(self.values, times))


class Kept:
    """Tables of keys and values by layer, which grow as windows come, and are let go with the last.

    A block has, in the keys' table, for each head its channels, a row of 64 frames each; in the
    values', for each head its frames, a row of channels each.
    """

    def __init__(self, weights: DecoderWeights) -> None:
        self._bags: Bags = weights.cross
        self._num_layers, self._heads = len(weights.layers), weights.heads
        self._width = weights.positions_TD.shape[1] // weights.heads
        self._scale = 1 / math.sqrt(self._width)
        self._device = weights.positions_TD.device
        self._num_blocks = 0
        self._free: list[int] = []
        self._keys: list[Tensor] = []  # none while there are no windows
        self._values: list[Tensor] = []

    @property
    def num_blocks(self) -> int:
        """That there is room for."""
        return self._num_blocks

    @property
    def nbytes(self) -> int:
        return sum(table.nbytes for table in (*self._keys, *self._values))

    def take(
        self,
        crosses: Sequence[CrossAttention],
        states_TD: Tensor,
        log_weights_T: Tensor | None,
        gates: OpenModules | None = None,
    ) -> Window:
        """A window's keys and values of each layer whose cross-attention runs, of what it kept."""
        window = self._window(len(states_TD), log_weights_T, gates)
        places = torch.tensor(window.blocks, device=self._device)
        try:
            for number, cross in enumerate(crosses):
                if not window.runs(number, ACROSS):
                    continue
                self._write(places, self._keys[number], cross.key(states_TD), channels_first=True)
                self._write(places, self._values[number], cross.value(states_TD))
        except BaseException:
            self.leave(window)
            raise
        return window

    def _write(
        self, places: Tensor, table: Tensor, found_TD: Tensor, *, channels_first: bool = False
    ) -> None:
        """Into the blocks `places`."""
        blocks = len(places)
        padded = F.pad(found_TD, (0, 0, 0, blocks * FRAMES - len(found_TD)))
        by_block = padded.view(blocks, FRAMES, self._heads, self._width)
        split = by_block.permute(0, 2, 3, 1) if channels_first else by_block.transpose(1, 2)
        rows = self._bags.rows(split.reshape(-1, split.shape[-1]))
        _by_block(table, self._num_blocks).index_copy_(0, places, _by_block(rows, blocks))

    def leave(self, window: Window) -> None:
        """A row less reads it."""
        window.rows -= 1
        if not window.rows:
            self._free += window.blocks
            if len(self._free) == self._num_blocks:
                self._let_go()

    def queries(self, windows: Sequence[Window]) -> Queries:
        """For rows that read these, in their order."""
        counts = [len(window.blocks) for window in windows]
        each = torch.tensor(counts).repeat_interleave(self._heads)
        firsts, num_bags, most = each.cumsum(0) - each, sum(counts) * self._heads, max(counts)
        row_heads = torch.arange(len(each)).repeat_interleave(each)
        slots = None
        if min(counts) < most:
            slots = row_heads * most + torch.arange(num_bags) - firsts[row_heads]
            slots = slots.to(self._device)
        bias_BW = [
            F.pad(window.bias_W, (0, (most - count) * FRAMES), value=-torch.inf)
            for window, count in zip(windows, counts, strict=True)
        ]
        return Queries(
            self._bag(
                [window.key_rows for window in windows], torch.arange(num_bags) * self._width
            ),
            self._bag([window.value_rows for window in windows], firsts * FRAMES),
            row_heads.to(self._device),
            slots,
            torch.stack(bias_BW)[:, None],
        )

    def _bag(self, indices: Sequence[Tensor], offsets: Tensor) -> Bag:
        return Bag(torch.cat(list(indices)), offsets.to(torch.int32).to(self._device))

    def attend(self, layer: int, query_BHNK: Tensor, queries: Queries) -> Tensor:
        """The context (B, N, D) of what each row's window kept."""
        rows, heads, new, width = query_BHNK.shape
        query_NRK = query_BHNK.permute(2, 0, 1, 3).reshape(new, rows * heads, width)
        query_NRK = query_NRK.to(self._bags.dtype)
        at_once = max(1, QUERIES_AT_ONCE // rows)
        if new > at_once:
            parts = torch.split(query_NRK, at_once)
            context_NRK = torch.cat([self._read(layer, some, queries) for some in parts])
        else:
            context_NRK = self._read(layer, query_NRK, queries)
        return context_NRK.to(query_BHNK.dtype).view(new, rows, -1).transpose(0, 1)

    def _read(self, layer: int, query_NRK: Tensor, queries: Queries) -> Tensor:
        new, row_heads, _ = query_NRK.shape
        repeated = queries.at_once(new)
        weights = query_NRK.index_select(1, queries.row_heads).view(-1)
        logits = self._bags.sums(self._keys[layer], repeated.keys, weights)
        rows, _, frames = queries.bias_B1W.shape
        if queries.slots is not None:
            found = logits.view(new, len(queries.slots), FRAMES)
            logits = logits.new_zeros(new, row_heads * frames // FRAMES, FRAMES)
            logits.index_copy_(1, queries.slots, found)
        logits = logits.view(new, rows, row_heads // rows, frames)
        weights = torch.add(queries.bias_B1W, logits, alpha=self._scale).softmax(-1)
        if queries.slots is not None:
            weights = weights.view(new, -1, FRAMES).index_select(1, queries.slots)
        context = self._bags.sums(self._values[layer], repeated.values, weights.reshape(-1))
        return context.view(query_NRK.shape)

    def _window(self, kept: int, log_weights_T: Tensor | None, gates: OpenModules | None) -> Window:
        num = -(-kept // FRAMES)
        self._make_room(num)
        blocks = [self._free.pop() for _ in range(num)]
        bias_W = torch.full((num * FRAMES,), -torch.inf, dtype=self._bags.dtype)
        bias_W[:kept] = 0 if log_weights_T is None else log_weights_T
        return Window(
            blocks,
            self._rows_of(blocks, self._width),
            self._rows_of(blocks, FRAMES),
            bias_W.to(self._device),
            gates=gates,
        )

    def _rows_of(self, blocks: Sequence[int], num_rows: int) -> Tensor:
        """Of a table whose blocks have so many rows for each head: by head, block and row."""
        heads = torch.arange(self._heads)[:, None, None]
        of_block = torch.tensor(blocks)[:, None] * self._heads
        rows = (of_block + heads) * num_rows + torch.arange(num_rows)
        return rows.flatten().to(torch.int32).to(self._device)

    def _make_room(self, num: int) -> None:
        """For so many blocks. What there was is held twice meanwhile."""
        if len(self._free) >= num:
            return
        held = self._num_blocks
        first = BLOCKS_ON_CPU if self._device.type == "cpu" else BLOCKS_ELSEWHERE
        more = max(held + num, held * 3 // 2, first)
        # Both before either counts: memory may run out.
        keys = self._longer(self._keys, more * self._width, FRAMES)
        values = self._longer(self._values, more * FRAMES, self._width)
        self._num_blocks, self._keys, self._values = more, keys, values
        self._free += range(more - 1, held - 1, -1)

    def _longer(self, tables: Sequence[Tensor], num_rows: int, width: int) -> list[Tensor]:
        """Tables with so many rows a head, that begin with what these hold. They are one piece,
        which the system takes back as soon as nobody needs it."""
        rows = self._heads * num_rows
        whole = self._bags.new_table(self._num_layers * rows, width, self._device)
        longer = list(torch.split(whole, rows))
        for table, held in zip(longer, tables, strict=False):
            table[: len(held)] = held
        return longer

    def _let_go(self) -> None:
        self._num_blocks = 0
        self._free, self._keys, self._values = [], [], []


def _by_block(rows: Tensor, num_blocks: int) -> Tensor:
    return rows.reshape(num_blocks, -1)


def _repeat(bag: Bag, times: int) -> Bag:
    """The same bags, so many times over."""
    later = torch.arange(times, dtype=torch.int32, device=bag.offsets.device) * len(bag.indices)
    offsets = (later[:, None] + bag.offsets).flatten()
    return Bag(bag.indices.repeat(times), offsets)
