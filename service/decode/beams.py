"""A window's beam, one token further: what goes on, what has ended, and what the answer is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from service.decode import search
from service.decode.rows import Row, WindowState
from service.decode.search import Candidate, Scored


class Going(NamedTuple):
    """Sequences that go on, likeliest first, and for each the number of the row that it was on."""

    sequences: list[Scored]
    sources: list[int]


def grow(window: WindowState, rows: Sequence[Row], logprobs_RV: Tensor, eot: int) -> Going:
    """One more token on a window's rows; what has ended is among its `finished`."""
    best = logprobs_RV.topk(window.beam_size + 1)
    chosen = zip(rows, best.indices.tolist(), best.values.tolist(), strict=True)
    candidates = [
        Candidate(source, token, row.sum_logprob + logprob)
        for source, (row, tokens, logprobs) in enumerate(chosen)
        for token, logprob in zip(tokens, logprobs, strict=True)
        if logprob > -math.inf
    ]
    kept, ended = search.rank(candidates, window.beam_size, eot)
    window.finished += [rows[c.source].said(c.sum_logprob, ended=True) for c in ended]
    del window.finished[_most(window) :]
    return Going([rows[c.source].going_on(c) for c in kept], [c.source for c in kept])


def is_done(window: WindowState, going: Going) -> bool:
    """Whether nothing goes on, or enough has ended."""
    return not going.sequences or len(window.finished) >= _most(window)


def answer(window: WindowState, going: Going) -> Scored:
    """The best of what has ended, or of what goes on where too little has."""
    return search.best(
        window.finished,
        going.sequences,
        window.beam_size,
        window.options.length_penalty,
        window.num_given,
    )


def _most(window: WindowState) -> int:
    return search.max_finished(window.beam_size, window.options.patience)
