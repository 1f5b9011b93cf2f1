"""The step of a decode batch on a GPU, recorded once for each of a few numbers of rows.

A step is hundreds of short kernels, which Python starts more slowly than a GPU runs them. Recorded
as a CUDA graph they are started at once, and in a step after another nothing is told the device.
Where there is no GPU to record on, a replay is the same work done again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from service.decode.rules import Rules, Said
from service.decode.seats import SeatCache
from service.decode.step import Chosen, Sent, Ways, choose
from service.model import decoder
from service.model.weights import DecoderWeights

# Rows that a graph is recorded for; those in between take the next one's. More go without.
SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512)


@dataclass(frozen=True, slots=True, eq=False)
class _Recorded:
    """`replay` puts what the next step gives into the other two."""

    replay: Callable[[], object]
    chosen: Chosen
    both_B2: Tensor


class Graphs:
    """`step.step` for a cache of seats, where every row takes the likeliest of what is allowed."""

    def __init__(self, weights: DecoderWeights, token_rules: Rules) -> None:
        self.cache = SeatCache(weights)
        self._weights, self._rules = weights, token_rules
        self._device = weights.positions_TD.device
        self._recorded: dict[int, _Recorded] = {}
        self._generation = -1
        self._pool = torch.cuda.graph_pool_handle() if self._device.type == "cuda" else None

    def step(self, tokens_B1: Tensor, said: Said) -> Chosen | None:
        """Feeds every row its last token, and chooses the next one. None: there are too many rows.

        What is returned is overwritten by the next step, but for what is sent to the host: that by
        the one after it.
        """
        num_rows = self.cache.num_rows
        size = next((size for size in SIZES if size >= num_rows), None)
        if size is None:
            return None
        self.cache.make_seats(size)
        self.cache.tell()
        if self._generation != self.cache.generation:
            self._forget()
        self._take(tokens_B1, said, num_rows)
        if size not in self._recorded:
            self._recorded[size] = self._record(size)
        recorded = self._recorded[size]
        recorded.replay()
        self.cache.advanced(0, 1)
        token_B, *said_next = self._state_4S[:, :num_rows]
        return Chosen(
            token_B,
            recorded.chosen.logprob_B[:num_rows],
            recorded.chosen.logprobs_BV[:num_rows],
            Said(*said_next),
            self._send(recorded.both_B2[:num_rows]),
        )

    def _forget(self) -> None:
        """What was recorded is of seats that are no more."""
        self._recorded.clear()
        self._generation = self.cache.generation
        seats, on_gpu = self.cache.num_seats, self._device.type == "cuda"
        # The last token of each row, and the three of `Said`.
        self._state_4S = torch.zeros(4, seats, dtype=torch.int64, device=self._device)
        self._post = [
            torch.empty(seats, 2, dtype=torch.float64, pin_memory=on_gpu) for _ in range(2)
        ]

    def _take(self, tokens_B1: Tensor, said: Said, num_rows: int) -> None:
        """What the rows have said, unless it is where the last step left it."""
        if tokens_B1.data_ptr() != self._state_4S.data_ptr():
            self._state_4S[:, :num_rows] = torch.stack([tokens_B1[:, 0], *said])

    def _send(self, both_B2: Tensor) -> Sent:
        self._post.reverse()
        on_host = self._post[0][: len(both_B2)]
        on_host.copy_(both_B2, non_blocking=True)
        if self._device.type != "cuda":
            return Sent(on_host, None)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrival.record()
        return Sent(on_host, arrival)

    def _record(self, size: int) -> _Recorded:
        if self._device.type != "cuda":
            chosen, both_B2 = self._work(size)

            def again() -> None:
                new, new_both_B2 = self._work_on(size)
                chosen.logprob_B.copy_(new.logprob_B)
                chosen.logprobs_BV.copy_(new.logprobs_BV)
                both_B2.copy_(new_both_B2)

            return _Recorded(again, chosen, both_B2)
        # Once first: what is compiled or allocated at the first call cannot be recorded. Nothing
        # comes of it, because a row writes the same keys at the same place again.
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._work(size)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile: word times do.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            chosen, both_B2 = self._work_on(size)
        return _Recorded(graph.replay, chosen, both_B2)

    def _work(self, size: int) -> tuple[Chosen, Tensor]:
        tokens_B, *so_far = self._state_4S[:, :size]
        reading = self.cache.reading_of(slice(0, size))
        logits_BNV = decoder.read(self._weights, tokens_B[:, None], reading)
        chosen = choose(self._rules, logits_BNV[:, -1], Said(*so_far), Ways({}, {}))
        return chosen, chosen.both()

    def _work_on(self, size: int) -> tuple[Chosen, Tensor]:
        """And leaves things as the next step takes them."""
        chosen, both_B2 = self._work(size)
        self._state_4S[:, :size] = torch.stack([chosen.token_B, *chosen.said])
        self.cache.seats.rows_3B[1, :size] += 1
        return chosen, both_B2
