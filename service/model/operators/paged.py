"""Attention over keys and values in pages, on a GPU: three Triton kernels.

A page holds, for every layer, keys and then values of `PAGE` tokens or frames in a row, head by
head: (L, 2, H, PAGE, K). Pages lie anywhere, and tables say where; so one call reads rows that have
said and kept differently much, without a copy and without padding, and a call that a CUDA graph has
recorded reads what the tables say by then. Source: PagedAttention (arXiv 2309.06180), and for
`splits` Flash-Decoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

PAGE = 64  # tokens or frames: 1500 of these are 23.4 pages
# A place is given in so many elements: of what is known to be a multiple of it, sixteen bytes are
# read at once.
UNIT = 16
QUERIES = 16  # of one row that a program reads for: the fewest that a matrix unit takes
MOST_SPLITS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Pages:
    """`tables_SP`: int64, where each seat's pages begin, in units of `UNIT` elements from the
    beginning of `base`; in `base`'s type. Each page has `heads` of `width` (a power of two)."""

    base: Tensor
    tables_SP: Tensor
    heads: int
    width: int

    @property
    def half(self) -> int:
        """Elements of one layer's keys, or values."""
        return self.heads * PAGE * self.width

    def place(self, page: Tensor) -> int:
        """What a table says of a page."""
        return (page.data_ptr() - self.base.data_ptr()) // (UNIT * self.base.element_size())


def write(
    key_BHNK: Tensor,
    value_BHNK: Tensor,
    pages: Pages,
    seats_B: Tensor,
    positions_BN: Tensor,
    layer: int,
) -> None:
    """Puts N keys and values of each row at their positions in its seat's pages.

    Both are laid out alike, K in order. `seats_B`, `positions_BN`: int64.
    """
    rows, heads, new, width = key_BHNK.shape
    _write[rows, new](
        key_BHNK,
        value_BHNK,
        pages.base,
        pages.tables_SP,
        seats_B,
        positions_BN,
        *(key_BHNK.stride(0), key_BHNK.stride(1), key_BHNK.stride(2)),
        *(pages.tables_SP.stride(0), positions_BN.stride(0), positions_BN.stride(1)),
        2 * layer * pages.half,
        HALF=pages.half,
        HEADS=heads,
        MOST_HEADS=triton.next_power_of_2(heads),
        WIDTH=width,
        PAGE_SIZE=PAGE,
        UNIT_SIZE=UNIT,
    )


def attend(
    query_BHNK: Tensor,
    pages: Pages,
    seats_B: Tensor,
    lengths_BN: Tensor,
    layer: int,
    bias_ST: Tensor | None = None,
    splits: int = 1,
) -> Tensor:
    """The context (B, N, D) of queries that read the first `lengths_BN` (at least 1) of a seat's.

    `bias_ST`: what is added to each query's logits, by seat. `splits`: in so many parts that are
    read side by side, `MOST_SPLITS` at most, where rows are too few to keep a GPU busy.
    """
    rows, heads, new, width = query_BHNK.shape
    out_BND = query_BHNK.new_empty(rows, new, heads * width)
    parts = out_BND
    if splits > 1:  # of each the sum, and then the largest logit and the sum of weights
        parts = query_BHNK.new_empty(rows * new, heads, splits, width + 2, dtype=torch.float32)
    blocks = triton.cdiv(new, QUERIES)
    _attend[rows * blocks, heads, splits](
        query_BHNK,
        parts,
        pages.base,
        pages.tables_SP,
        seats_B,
        lengths_BN,
        bias_ST if bias_ST is not None else query_BHNK,
        *(query_BHNK.stride(0), query_BHNK.stride(1), query_BHNK.stride(2)),
        *(pages.tables_SP.stride(0), lengths_BN.stride(0), lengths_BN.stride(1)),
        0 if bias_ST is None else bias_ST.stride(0),
        new,
        splits,
        2 * layer * pages.half,
        1 / math.sqrt(width),
        BIASED=bias_ST is not None,
        IN_PARTS=splits > 1,
        HALF=pages.half,
        HEADS=heads,
        WIDTH=width,
        PAGE_SIZE=PAGE,
        UNIT_SIZE=UNIT,
        BLOCK=QUERIES,
        # TF32 keeps ten bits: whoever asks for float32 means it.
        PRECISION="ieee" if query_BHNK.dtype == torch.float32 else "tf32",
        num_warps=4,
        num_stages=3,
    )
    if splits > 1:
        _merge[rows * new, heads](
            parts, out_BND, splits, HEADS=heads, WIDTH=width, MOST=MOST_SPLITS, num_warps=1
        )
    return out_BND


@triton.jit
def _write(
    key,
    value,
    base,
    tables,
    seats,
    positions,
    row_stride,
    head_stride,
    new_stride,
    table_stride,
    position_row_stride,
    position_new_stride,
    layer_offset,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    MOST_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    UNIT_SIZE: tl.constexpr,
):
    row, new = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    position = tl.load(positions + row * position_row_stride + new * position_new_stride)
    seat = tl.load(seats + row)
    page = tl.load(tables + seat * table_stride + position // PAGE_SIZE) * UNIT_SIZE
    head = tl.arange(0, MOST_HEADS)[:, None]
    at = tl.arange(0, WIDTH)[None, :]
    source = row * row_stride + head * head_stride + new * new_stride + at
    target = base + page + layer_offset
    target += (head * PAGE_SIZE + position % PAGE_SIZE) * WIDTH + at
    tl.store(target, tl.load(key + source, mask=head < HEADS), mask=head < HEADS)
    tl.store(target + HALF, tl.load(value + source, mask=head < HEADS), mask=head < HEADS)


@triton.jit(do_not_specialize=["num_new", "splits"])
def _attend(
    query,
    out,
    base,
    tables,
    seats,
    lengths,
    bias,
    row_stride,
    head_stride,
    new_stride,
    table_stride,
    length_row_stride,
    length_new_stride,
    bias_stride,
    num_new,
    splits,
    layer_offset,
    scale,
    BIASED: tl.constexpr,
    IN_PARTS: tl.constexpr,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    UNIT_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    blocks = tl.cdiv(num_new, BLOCK)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    head, split = tl.program_id(1), tl.program_id(2)
    seat = tl.load(seats + row)
    at = tl.arange(0, WIDTH)
    near = tl.arange(0, PAGE_SIZE)
    new = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    asks = new < num_new
    length = tl.load(
        lengths + row * length_row_stride + new * length_new_stride, mask=asks, other=1
    ).to(tl.int32)
    asked = tl.load(
        query + row * row_stride + head * head_stride + new[:, None] * new_stride + at[None, :],
        mask=asks[:, None],
        other=0.0,
    )
    pages = tl.cdiv(tl.max(length, axis=0), PAGE_SIZE)
    each = tl.cdiv(pages, splits)
    first = split * each
    end = tl.minimum(pages, first + each)
    inside = layer_offset + head * PAGE_SIZE * WIDTH + near[:, None] * WIDTH + at[None, :]

    most = tl.full([BLOCK], -float("inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    context = tl.zeros([BLOCK, WIDTH], dtype=tl.float32)
    for number in range(first, end):
        page = base + tl.load(tables + seat * table_stride + number) * UNIT_SIZE
        there = number * PAGE_SIZE + near
        # What nobody wrote is not read: NaN times nothing is NaN.
        written = there < tl.max(length, axis=0)
        keys = tl.load(page + inside, mask=written[:, None], other=0.0)
        values = tl.load(page + HALF + inside, mask=written[:, None], other=0.0)
        logits = tl.dot(asked, tl.trans(keys), input_precision=PRECISION) * scale
        if BIASED:
            added = tl.load(bias + seat * bias_stride + there, mask=written, other=0.0)
            logits += added.to(tl.float32)[None, :]
        logits = tl.where(there[None, :] < length[:, None], logits, -float("inf"))
        now = tl.maximum(most, tl.max(logits, axis=1))
        # Of a query that sees nothing yet: -inf less -inf is no number.
        least = tl.where(now == -float("inf"), 0.0, now)
        shrunk = tl.exp(most - least)
        weights = tl.exp(logits - least[:, None])
        total = total * shrunk + tl.sum(weights, axis=1)
        context = context * shrunk[:, None]
        context += tl.dot(weights.to(values.dtype), values, input_precision=PRECISION)
        most = now

    token = (row * num_new + new) * HEADS + head
    if IN_PARTS:
        part = out + (token * splits + split) * (WIDTH + 2)
        tl.store(part[:, None] + at[None, :], context, mask=asks[:, None])
        tl.store(part + WIDTH, most, mask=asks)
        tl.store(part + WIDTH + 1, total, mask=asks)
    else:
        whole = (context / total[:, None]).to(out.dtype.element_ty)
        tl.store(out + token[:, None] * WIDTH + at[None, :], whole, mask=asks[:, None])


@triton.jit(do_not_specialize=["splits"])
def _merge(
    parts,
    out,
    splits,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    MOST: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64) * HEADS + tl.program_id(1)
    at = tl.arange(0, WIDTH)
    split = tl.arange(0, MOST)
    part = parts + (token * splits + split) * (WIDTH + 2)
    there = split < splits
    most = tl.load(part + WIDTH, mask=there, other=-float("inf"))
    total = tl.load(part + WIDTH + 1, mask=there, other=0.0)
    context = tl.load(part[:, None] + at[None, :], mask=there[:, None], other=0.0)
    share = tl.exp(most - tl.max(most, axis=0))
    whole = tl.sum(context * share[:, None], axis=0) / tl.sum(total * share, axis=0)
    tl.store(out + token * WIDTH + at, whole.to(out.dtype.element_ty))
