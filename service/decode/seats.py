"""Keys and values of the windows being decoded, in pages, on a GPU.

A row sits on a seat: what the device knows of it (where its pages are, what it kept) is told once
and never moves, whoever joins or leaves beside it. Pages come from chunks that are allocated as
they are needed and stay where they are, so what a CUDA graph has recorded stays right. A window
takes pages for what it kept, one of half the frames half of them; a beam's sequences share these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import torch
from torch import Tensor

from service.errors import EngineError
from service.model.cache import EveryRow
from service.model.layers import split_heads
from service.model.operators import paged
from service.model.operators.paged import MOST_SPLITS, PAGE, Pages
from service.model.weights import CrossAttention, DecoderWeights
from service.types import OpenModules

PAGES_AT_ONCE = 32  # a dense window of Whisper's takes 24, and 7 for all that it may say
SEATS_AT_FIRST, FRAMES_AT_FIRST = 64, 1500
NOBODY = 0  # the seat of rows that are read along to fill up a graph
PROGRAMS = 1024  # that read side by side keep a GPU busy; more cost more than they bring


class Arena:
    """Pages of one size, by number."""

    def __init__(self, elements: int, like: Tensor) -> None:
        self._elements, self._like = elements, like
        self._chunks: list[Tensor] = []
        self._free: list[int] = []

    def take(self, num: int) -> list[int]:
        while len(self._free) < num:
            first = len(self._chunks) * PAGES_AT_ONCE
            self._chunks.append(self._like.new_empty(PAGES_AT_ONCE, self._elements))
            self._free += range(first + PAGES_AT_ONCE - 1, first - 1, -1)
        return [self._free.pop() for _ in range(num)]

    def give_back(self, pages: Sequence[int]) -> None:
        self._free += pages

    def shrink(self) -> None:
        """Lets go of all chunks but the first, where nothing of the others is in use."""
        if all(page < PAGES_AT_ONCE for page in self.in_use):
            del self._chunks[1:]
            self._free = [page for page in self._free if page < PAGES_AT_ONCE]

    @property
    def in_use(self) -> set[int]:
        return set(range(len(self._chunks) * PAGES_AT_ONCE)) - set(self._free)

    def page(self, number: int) -> Tensor:
        """All of it, in one dimension."""
        return self._chunks[number // PAGES_AT_ONCE][number % PAGES_AT_ONCE]


@dataclass(slots=True, eq=False)
class _Window:
    """The pages of what a window kept, and how many rows read them."""

    pages: list[int]
    kept: int
    rows: int = 1


@dataclass(slots=True, eq=False)
class _Row:
    seat: int
    own: list[int]
    window: _Window


@dataclass(slots=True, eq=False)
class _Seats:
    """What the device knows. By seat: where a row's own pages are and its window's, and what is
    added to each kept frame's logits. By row: its seat, the position of its next token, and how
    many frames its window kept."""

    own: Pages
    windows: Pages
    bias_ST: Tensor
    rows_3B: Tensor


@dataclass(slots=True, eq=False)
class SeatReading(EveryRow):
    """`cache.Reading` of rows on seats."""

    seats: _Seats
    seats_B: Tensor
    positions_BN: Tensor
    lengths_BN: Tensor
    kept_BN: Tensor
    biased: bool

    def attend(self, layer: int, query_BHNK: Tensor, key: Tensor, value: Tensor) -> Tensor:
        own = self.seats.own
        paged.write(key, value, own, self.seats_B, self.positions_BN, layer)
        return paged.attend(query_BHNK, own, self.seats_B, self.lengths_BN, layer)

    def attend_across(self, layer: int, query_BHNK: Tensor) -> Tensor:
        rows, heads = query_BHNK.shape[:2]
        return paged.attend(
            query_BHNK,
            self.seats.windows,
            self.seats_B,
            self.kept_BN,
            layer,
            self.seats.bias_ST if self.biased else None,
            splits=max(1, min(PROGRAMS // (rows * heads), MOST_SPLITS)),
        )


@dataclass(eq=False)
class SeatCache:
    """`cache.Cache` in pages. `generation` counts how often what graphs have recorded went."""

    weights: DecoderWeights
    lengths: list[int] = field(default_factory=list)
    generation: int = 0
    biased: bool = False

    def __post_init__(self) -> None:
        self._like = self.weights.positions_TD
        max_tokens, width = self._like.shape
        self._own_pages = _pages_for(max_tokens)
        self._arena = Arena(2 * len(self.weights.layers) * PAGE * width, self._like)
        self._rows: list[_Row] = []
        self._told = False
        (self._scratch,) = self._arena.take(1)
        self._arena.page(self._scratch).zero_()
        self._make_seats(SEATS_AT_FIRST, _pages_for(FRAMES_AT_FIRST))

    @property
    def num_rows(self) -> int:
        return len(self.lengths)

    @property
    def num_pages(self) -> int:
        """In use: those of the rows, and one of nobody's."""
        return len(self._arena.in_use)

    @property
    def num_seats(self) -> int:
        return len(self.seats.own.tables_SP)

    def join(
        self,
        crosses: Sequence[CrossAttention],
        states_BTD: Tensor,
        log_weights_BT: Tensor | None = None,
        gates: Sequence[OpenModules | None] = (),
    ) -> None:
        """As `cache.Cache` has it, but for gates: raises EngineError for them, because what is
        recorded runs every module."""
        if any(gates):
            raise EngineError("gates are not served on a GPU: use device cpu, or no gates")
        num_windows, kept, _ = states_BTD.shape
        each = _pages_for(kept)
        pages = self._arena.take(num_windows * each)
        try:
            rows = self._sit(
                [_Window(pages[n : n + each], kept) for n in range(0, len(pages), each)]
            )
        except Exception:  # out of memory, most likely: what could not join leaves no trace
            self._arena.give_back(pages)
            raise
        seats_B = self._number([row.seat for row in rows])
        if log_weights_BT is not None and not self.biased:
            self.biased = True
            self.generation += 1
        if self.biased:
            self.seats.bias_ST[seats_B] = 0
        if log_weights_BT is not None:
            self.seats.bias_ST[seats_B, :kept] = log_weights_BT.to(self.seats.bias_ST.dtype)
        positions_BT = torch.arange(kept, device=self._like.device).expand(num_windows, -1)
        for layer, cross in enumerate(crosses):
            key = split_heads(cross.key(states_BTD), self.weights.heads)
            value = split_heads(cross.value(states_BTD), self.weights.heads)
            paged.write(key, value, self.seats.windows, seats_B, positions_BT, layer)

    def reading(self, first_row: int, num_new: int) -> SeatReading:
        """As `cache.Cache` has it."""
        self.tell()
        return self.reading_of(slice(first_row, self.num_rows), num_new)

    def reading_of(self, rows: slice, num_new: int = 1) -> SeatReading:
        """Of rows as they have been told, used or not."""
        seats_B, starts_B, kept_B = self.seats.rows_3B[:, rows].unbind()
        positions_BN = starts_B[:, None]
        if num_new > 1:
            positions_BN = positions_BN + torch.arange(num_new, device=self._like.device)
        kept_BN = kept_B[:, None].expand(-1, num_new)
        return SeatReading(
            self.seats, seats_B, positions_BN, positions_BN + 1, kept_BN, self.biased
        )

    def tell(self) -> None:
        """Tells the device who sits where, unless it knows."""
        if self._told:
            return
        rows = [
            (row.seat, length, row.window.kept)
            for row, length in zip(self._rows, self.lengths, strict=True)
        ]
        rows += [(NOBODY, 0, 1)] * (self.num_seats - len(rows))
        self.seats.rows_3B.copy_(torch.tensor(rows).T)
        self._told = True

    def advance(self, first_row: int, num_tokens: int) -> None:
        """As `cache.Cache` has it."""
        self.advanced(first_row, num_tokens)
        self.seats.rows_3B[1, first_row : self.num_rows] += num_tokens

    def advanced(self, first_row: int, num_tokens: int) -> None:
        """The same where the device knows."""
        self.lengths[first_row:] = [length + num_tokens for length in self.lengths[first_row:]]

    def fork(self, source: int) -> int:
        """As `cache.Cache` has it."""
        window = self._rows[source].window
        (row,) = self._sit([window])
        window.rows += 1
        theirs = self._rows[source]
        if self.biased:
            self.seats.bias_ST[row.seat] = self.seats.bias_ST[theirs.seat]
        self.lengths[-1] = self.lengths[source]
        self._copy([(row, theirs)], self.lengths[source])
        return self.num_rows - 1

    def reorder(self, rows: Sequence[int], sources: Sequence[int]) -> None:
        """As `cache.Cache` has it."""
        if rows:
            pairs = [(self._rows[r], self._rows[s]) for r, s in zip(rows, sources, strict=True)]
            self._copy(pairs, self.lengths[rows[0]])

    def rewind(self, first_row: int) -> None:
        """As `cache.Cache` has it."""
        self._told = False
        self.lengths[first_row:] = [0] * (self.num_rows - first_row)

    def remove(self, row: int) -> None:
        """As `cache.Cache` has it."""
        self._told = False
        left, last = self._rows[row], self._rows.pop()
        length = self.lengths.pop()
        if row < len(self._rows):
            self._rows[row], self.lengths[row] = last, length
        self._free_seats.append(left.seat)
        self._arena.give_back(left.own)
        left.window.rows -= 1
        if not left.window.rows:
            self._arena.give_back(left.window.pages)
        if not self._rows:
            self._arena.shrink()

    def window_pages(self, row: int) -> list[Tensor]:
        """What a row's window kept, as it is held."""
        return [self._arena.page(page) for page in self._rows[row].window.pages]

    def _sit(self, windows: Sequence[_Window]) -> list[_Row]:
        """A row for each, at the end; their own pages are enough for all that may be said."""
        self._make_room(len(windows), max(len(window.pages) for window in windows))
        each, pages = self._own_pages, self._arena.take(len(windows) * self._own_pages)
        self._told = False
        rows = [
            _Row(self._free_seats.pop(), pages[n * each : (n + 1) * each], window)
            for n, window in enumerate(windows)
        ]
        self._rows += rows
        self.lengths += [0] * len(rows)
        seats_B = self._number([row.seat for row in rows])
        own, window = self.seats.own, self.seats.windows
        own.tables_SP[seats_B] = self._places(own, [row.own for row in rows])
        places_BP = self._places(window, [one.pages for one in windows])
        window.tables_SP[seats_B, : places_BP.shape[1]] = places_BP
        return rows

    def _copy(self, pairs: Sequence[tuple[_Row, _Row]], used: int) -> None:
        """What rows have read, from the second of each pair to the first, all at once."""
        pages = [
            (to, self._arena.page(by).clone())
            for mine, theirs in pairs
            for to, by in list(zip(mine.own, theirs.own, strict=True))[: _pages_for(used)]
        ]
        for to, held in pages:
            self._arena.page(to).copy_(held)

    def make_seats(self, num: int) -> None:
        """For so many rows at least, that of nobody beside them."""
        self._make_room(num - self.num_rows, 0)

    def _make_room(self, num: int, pages: int) -> None:
        """Seats for so many more, with windows of so many pages."""
        most = self.seats.windows.tables_SP.shape[1]
        if len(self._free_seats) >= num and pages <= most:
            return
        held = self.seats
        self._make_seats(
            max(2 * self.num_seats, self.num_rows + num + 1), max(pages, most), self._rows
        )
        for new, old in (
            (self.seats.own.tables_SP, held.own.tables_SP),
            (self.seats.windows.tables_SP, held.windows.tables_SP),
            (self.seats.bias_ST, held.bias_ST),
        ):
            new[: old.shape[0], : old.shape[1]] = old

    def _make_seats(self, num: int, pages: int, rows: Sequence[_Row] = ()) -> None:
        base, device = self._arena.page(self._scratch), self._like.device
        heads, width = self.weights.heads, self._like.shape[1] // self.weights.heads
        own_SP, window_SP = (
            torch.zeros(num, most, dtype=torch.int64, device=device)  # of which each is scratch
            for most in (self._own_pages, pages)
        )
        self.seats = _Seats(
            Pages(base, own_SP, heads, width),
            Pages(base, window_SP, heads, width),
            self._like.new_zeros(num, pages * PAGE),
            torch.zeros(3, num, dtype=torch.int64, device=device),
        )
        taken = {row.seat for row in rows} | {NOBODY}
        self._free_seats = [seat for seat in range(num - 1, -1, -1) if seat not in taken]
        self._told = False
        self.generation += 1

    def _places(self, pages: Pages, numbers: Sequence[Sequence[int]]) -> Tensor:
        """(B, P): of each row's pages; where it has fewer, its table ends in scratch."""
        filled = zip(*zip_longest(*numbers, fillvalue=self._scratch), strict=True)
        places = [[pages.place(self._arena.page(page)) for page in row] for row in filled]
        return self._number(places)

    def _number(self, numbers: object) -> Tensor:
        return torch.tensor(numbers, device=self._like.device)


def _pages_for(num: int) -> int:
    return -(-num // PAGE)
