"""One token for every row: from what is on the device to what is on the device.

Nothing here waits for the device, and in a step after another nothing is told it either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from service.decode import rules
from service.decode.rules import Rules, Said
from service.model import decoder
from service.model.cache import Cache
from service.model.weights import DecoderWeights


class Ways(NamedTuple):
    """How rows choose that do not just take the likeliest of what the checkpoint allows, by row:
    `bias`, what `rules.suppressing` gave; `draws`, the temperature and where chance is from."""

    bias: Mapping[int, Tensor]
    draws: Mapping[int, tuple[float, torch.Generator]]


class Sent(NamedTuple):
    """What is on its way to the host: each row's token and its log-probability, (B, 2). It is there
    after its `arrival`; None: it is."""

    both_B2: Tensor
    arrival: torch.cuda.Event | None


class Chosen(NamedTuple):
    """The next token of each row, (B,), its log-probability, (B,), those of all tokens, (B, V), and
    what has been said with it. Where there is no likeliest token the log-probability is NaN."""

    token_B: Tensor
    logprob_B: Tensor
    logprobs_BV: Tensor
    said: Said
    sent: Sent | None = None

    def both(self) -> Tensor:
        """Tokens and log-probabilities together, (B, 2): a float64 is every token's number too."""
        return torch.stack([self.token_B.double(), self.logprob_B.double()], 1)

    def to_host(self) -> list[tuple[int, float]]:
        """Each row's token and its log-probability: waits for the device, once."""
        if self.sent is not None and self.sent.arrival is not None:
            self.sent.arrival.synchronize()
        both_B2 = self.both() if self.sent is None else self.sent.both_B2
        return [(int(token), logprob) for token, logprob in both_B2.tolist()]


def step(
    weights: DecoderWeights,
    cache: Cache,
    token_rules: Rules,
    tokens_B1: Tensor,
    said: Said,
    ways: Ways,
) -> Chosen:
    """Feeds every row its last token, and chooses the next one."""
    logits_BNV = decoder.step(weights, tokens_B1, cache)
    return choose(token_rules, logits_BNV[:, -1], said, ways)


def choose(token_rules: Rules, logits_BV: Tensor, said: Said, ways: Ways) -> Chosen:
    """The next token of each row. `logits_BV`: float32, and not to be used after this."""
    allowed_BV = rules.apply(token_rules, logits_BV, said, ways.bias)
    logprobs_BV = allowed_BV.log_softmax(-1)
    token_B = rules.likeliest(allowed_BV)
    for row, (temperature, chance) in ways.draws.items():
        # Nothing is drawn of NaN: its log-probability says so.
        weights_V = (allowed_BV[row] / temperature).softmax(-1).nan_to_num(1.0)
        token_B[row] = torch.multinomial(weights_V, 1, generator=chance)[0]
    logprob_B = logprobs_BV.gather(1, token_B[:, None])[:, 0]
    return Chosen(token_B, logprob_B, logprobs_BV, rules.then(token_rules, said, token_B))
