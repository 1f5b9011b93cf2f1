"""What a decoder asks of the keys and values of the windows being decoded.

`packed.DecodeCache` answers it, for a CPU and the way back for any device; `seats.SeatCache` too,
for a GPU.

A row is one window, or one sequence of a window's beam. Rows `[0, num_rows)` are in use; where one
leaves, the last takes its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from torch import Tensor

from service.model.weights import CrossAttention
from service.types import OpenModules


class Reading(Protocol):
    """N new tokens about to be read by each of some rows. `positions_BN`: theirs."""

    positions_BN: Tensor

    def among(self, layer: int, module: int) -> Reading | None:
        """Of those of the rows for which a module runs: itself where it does for all, None where it
        does for none."""

    def pick(self, x_BND: Tensor) -> Tensor:
        """Of the states that all rows have, those of these."""

    def add(self, x_BND: Tensor, found: Tensor) -> Tensor:
        """All rows' states, with what these found added to theirs."""

    def attend(self, layer: int, query_BHNK: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Keeps the new keys and values, and gives the context (B, N, D) of the queries, each of
        which sees what is not after it."""

    def attend_across(self, layer: int, query_BHNK: Tensor) -> Tensor:
        """The context (B, N, D) of what each row's window kept."""


class EveryRow:
    """What a reading says of gates where there are none."""

    __slots__ = ()

    def among(self, layer: int, module: int) -> Self | None:
        return self

    def pick(self, x_BND: Tensor) -> Tensor:
        return x_BND

    def add(self, x_BND: Tensor, found: Tensor) -> Tensor:
        return x_BND + found


class Cache(Protocol):
    """All state of a decode batch that lives on the device. `lengths[row]`: tokens in the row."""

    lengths: list[int]

    @property
    def num_rows(self) -> int: ...

    def join(
        self,
        crosses: Sequence[CrossAttention],
        states_BTD: Tensor,
        log_weights_BT: Tensor | None = None,
        gates: Sequence[OpenModules | None] = (),
    ) -> None:
        """Appends a row for each window, with what each layer's cross-attention reads of it.

        `log_weights_BT`: the logarithms of how many frames each state counts as; None: of one.
        `gates`: which modules run for each window; () and None: all.
        """

    def reading(self, first_row: int, num_new: int) -> Reading:
        """For the rows from `first_row` on, where they stand now."""

    def advance(self, first_row: int, num_tokens: int) -> None:
        """The rows from `first_row` on have read so many tokens more."""

    def fork(self, source: int) -> int:
        """Adds a row that holds what `source` holds, and returns its number."""

    def reorder(self, rows: Sequence[int], sources: Sequence[int]) -> None:
        """Each of `rows` takes what its source held: rows of one window, at one length."""

    def rewind(self, first_row: int) -> None:
        """Rows from `first_row` on have read nothing yet."""

    def remove(self, row: int) -> None:
        """Frees a row; the last row takes its number."""
