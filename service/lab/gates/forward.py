"""A window through a gated model, whole sequences at a time, so that gates can be trained.

Every module is computed and multiplied by its gate: what is off has a gradient too, which says
whether it should be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from service.model import decoder, encoder
from service.model.gates import DECODER_MODULES, Gates, Predictor, seen
from service.model.layers import mlp, norm
from service.model.weights import Weights

# Logits (M,) -> what the modules are multiplied by.
Draw = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A window and what is to be said of it: `tokens_1N`, of which the last `said` are predicted.
    `frames`: how many of its frames hear the recording. `language`: None where nobody says."""

    mel_1FT: Tensor
    frames: int
    tokens_1N: Tensor
    said: int
    language: str | None


def hard(logits_M: Tensor) -> Tensor:
    """As at run time."""
    return (logits_M > 0).to(logits_M.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """A window's states (1, T, D), all logits of the gates, and what they multiply the decoder's
    modules by."""

    states_1TD: Tensor
    logits_M: Tensor
    decoder: tuple[Tensor, ...]


def encoded(
    weights: Weights, gates: Gates, example: Example, context_C: Tensor, draw: Draw
) -> Encoding:
    """A window through the gated encoder."""
    every: list[Tensor] = []

    def ask(predictor: Predictor, states_1TD: Tensor) -> tuple[Tensor, ...]:
        # The states are not changed for the predictors' sake.
        every.append(predictor(seen(states_1TD.detach(), example.frames, context_C)))
        return tuple(draw(every[-1]))

    states = encoder.embed(weights.encoder, example.mel_1FT)
    for layer, predictor in zip(weights.encoder.layers, gates.encoder, strict=True):
        attends, feeds = ask(predictor, states)
        states = _mixed(states, encoder.attend(states, layer, weights.encoder), attends)
        states = _mixed(states, mlp(states, layer.mlp), feeds)
    states = norm(states, weights.encoder.norm)
    opens = ask(gates.decoder, states)
    return Encoding(states, torch.cat(every), opens)


def gated(
    weights: Weights, gates: Gates, example: Example, context_C: Tensor, draw: Draw
) -> tuple[Tensor, Tensor]:
    """The cross-entropy of what is said, the mean of its tokens, and all logits of the gates."""
    window = encoded(weights, gates, example, context_C, draw)
    states, tokens_1N = window.states_1TD, example.tokens_1N
    x = decoder.embed(weights.decoder, tokens_1N, torch.arange(tokens_1N.shape[1]))
    for number, block in enumerate(weights.decoder.layers):
        attends, across, feeds = window.decoder[number * DECODER_MODULES :][:DECODER_MODULES]
        x = _mixed(x, x + decoder.attention_before(weights.decoder, block, x), attends)
        added = decoder.attention_across(weights.decoder, block, x, states)
        x = _mixed(x, x + added, across)
        x = _mixed(x, mlp(x, block.mlp), feeds)
    first = tokens_1N.shape[1] - example.said
    logits_NV = decoder.logits(weights.decoder, x[:, first - 1 : -1])[0]
    loss = torch.nn.functional.cross_entropy(logits_NV, tokens_1N[0, first:])
    return loss, window.logits_M


def _mixed(before: Tensor, after: Tensor, gate: Tensor) -> Tensor:
    """`after` where the gate is 1, bit for bit, and `before` where it is 0."""
    return torch.lerp(before, after.to(before.dtype), gate.to(before.dtype))


@torch.no_grad()
def dense_means(weights: Weights, mel_1FT: Tensor, frames: int) -> list[Tensor]:
    """What each predictor would see of a window's states where everything runs: (D,) each."""
    nothing = torch.zeros(0)
    means, states = [], encoder.embed(weights.encoder, mel_1FT)
    for layer in weights.encoder.layers:
        means.append(seen(states, frames, nothing))
        states = mlp(encoder.attend(states, layer, weights.encoder), layer.mlp)
    return [*means, seen(norm(states, weights.encoder.norm), frames, nothing)]
