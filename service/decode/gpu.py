"""What a GPU decodes with: pages and graphs, where they are there and right, else as a CPU does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch

from service.decode import step
from service.decode.packed import empty_cache
from service.decode.rules import Rules, said
from service.decode.step import Chosen, Ways
from service.model import decoder
from service.model.weights import DecoderWeights

if TYPE_CHECKING:
    from service.decode.graphs import Graphs

log = logging.getLogger(__name__)

# Of the trial: what windows kept, a page and a part of one, and several; and how many tokens.
KEPT, NUM_TOKENS = (70, 200), 3
# To the largest log-probability of the right answer. A window's neighbour is 0.3 off or more.
CLOSE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def graphs_for(weights: DecoderWeights, token_rules: Rules) -> Callable[[], Graphs] | None:
    """How the memory and the step of a decode batch are made; None: not here.

    They are compiled and tried first, against packed rows and a call at a time.
    """
    if not weights.positions_TD.is_cuda:
        return None
    try:
        from service.decode.graphs import Graphs  # Triton, which is not everywhere
    except ImportError as error:
        log.warning("decoding without pages and graphs, which is slower: %s", error)
        return None
    make = partial(Graphs, weights, token_rules)
    try:
        right = is_right(make, weights, token_rules)
    except (RuntimeError, OSError) as error:  # no compiler, or one for another device
        log.warning("decoding without pages and graphs, which is slower: %s", error)
        return None
    if not right:
        log.warning("decoding without pages and graphs: what they give here is not right")
        return None
    return make


@torch.inference_mode()
def is_right(make: Callable[[], Graphs], weights: DecoderWeights, token_rules: Rules) -> bool:
    """Whether two windows' tokens come out as they do without."""
    graphs, packed = make(), empty_cache(weights)
    like, width = weights.positions_TD, weights.positions_TD.shape[1]
    draws = torch.Generator().manual_seed(0)
    for kept in KEPT:
        states_1TD = torch.randn(1, kept, width, generator=draws).to(like)
        log_weights_1T = torch.rand(1, kept, generator=draws).to(like) if kept == KEPT[0] else None
        for cache in (graphs.cache, packed):
            decoder.join(weights, cache, states_1TD, log_weights_1T)
    rows = len(KEPT)
    tokens_B1 = torch.zeros(rows, 1, dtype=torch.int64, device=like.device)
    so_far = said(token_rules, [[]] * rows, [False] * rows)
    for _ in range(NUM_TOKENS):
        right = step.step(weights, packed, token_rules, tokens_B1, so_far, Ways({}, {}))
        tried = graphs.step(tokens_B1.clone(), so_far)
        if tried is None or not _near(tried, right, CLOSE[like.dtype]):
            return False
        tokens_B1, so_far = right.token_B[:, None], right.said
    return True


def _near(tried: Chosen, right: Chosen, share: float) -> bool:
    allowed_BV = right.logprobs_BV.isfinite()
    if not torch.equal(tried.logprobs_BV.isfinite(), allowed_BV):
        return False
    off = (tried.logprobs_BV - right.logprobs_BV)[allowed_BV].abs().amax()
    return bool(off <= share * right.logprobs_BV[allowed_BV].abs().amax())
