"""Whisper's decoder over explicit weights: cached steps for serving, whole sequences for tests
and training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model.cache import Cache, Reading
from service.model.layers import feed, merge_heads, mlp, norm, project, split_heads
from service.model.operators.attention import fused
from service.model.weights import CrossAttention, DecoderLayer, DecoderWeights
from service.types import ACROSS, ATTENTION, FEED, OpenModules


def forward(weights: DecoderWeights, tokens_BN: Tensor, states_BTD: Tensor) -> Tensor:
    """Teacher-forced logits (B, N, V) in float32 for whole sequences, without a cache."""
    return forward_watched(weights, tokens_BN, states_BTD, ())[0]


def forward_watched(
    weights: DecoderWeights,
    tokens_BN: Tensor,
    states_BTD: Tensor,
    watched: Sequence[tuple[int, int]],
    log_weights_T: Tensor | None = None,
    gates: OpenModules | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """`forward`, and the cross-attention (B, N, T) of the watched heads, as (layer, head).

    `log_weights_T`: the logarithms of how many frames each state counts as; None: of one.
    `gates`: which modules run; None: all. A head that is watched looks where it would have looked,
    whether its cross-attention runs or not.
    """
    x = embed(weights, tokens_BN, torch.arange(tokens_BN.shape[1], device=tokens_BN.device))
    attention_BNT = []
    for number, layer in enumerate(weights.layers):
        attends, attends_across, feeds = gates.decoder[number] if gates else (True, True, True)
        if attends:
            x = x + attention_before(weights, layer, x)
        heads = [head for at, head in watched if at == number]
        if attends_across or heads:
            found, scores = _across_watched(weights, layer, x, states_BTD, heads, log_weights_T)
            attention_BNT += scores
            if attends_across:
                x = x + found
        if feeds:
            x = mlp(x, layer.mlp)
    return logits(weights, x), attention_BNT


def attention_before(weights: DecoderWeights, layer: DecoderLayer, x_BND: Tensor) -> Tensor:
    """What a layer's self-attention adds to whole sequences."""
    query, key, value = project(x_BND, layer.attention, weights.heads)
    context = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return layer.attention.out(merge_heads(context))


def attention_across(
    weights: DecoderWeights, layer: DecoderLayer, x_BND: Tensor, states_BTD: Tensor
) -> Tensor:
    """What a layer's cross-attention adds to whole sequences."""
    return _across_watched(weights, layer, x_BND, states_BTD, (), None)[0]


def _across_watched(
    weights: DecoderWeights,
    layer: DecoderLayer,
    x_BND: Tensor,
    states_BTD: Tensor,
    heads: Sequence[int],
    log_weights_T: Tensor | None,
) -> tuple[Tensor, list[Tensor]]:
    """The same, and where some heads look."""
    query = split_heads(layer.cross.query(norm(x_BND, layer.cross.norm)), weights.heads)
    key, value = cross_keys_values(layer.cross, states_BTD, weights.heads)
    context = fused(query, key, value, log_weights_T)
    attention_BNT = []
    for head in heads:
        scores = query[:, head] @ key[:, head].transpose(1, 2) / math.sqrt(key.shape[-1])
        if log_weights_T is not None:
            scores = scores + log_weights_T
        attention_BNT.append(scores.float().softmax(-1))
    return layer.cross.out(merge_heads(context)), attention_BNT


def cross_keys_values(
    cross: CrossAttention, states_BTD: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """What a layer's cross-attention reads of the encoder: two of (B, H, T, K)."""
    return (
        split_heads(cross.key(states_BTD), heads),
        split_heads(cross.value(states_BTD), heads),
    )


def join(
    weights: DecoderWeights,
    cache: Cache,
    states_BTD: Tensor,
    log_weights_BT: Tensor | None = None,
    gates: Sequence[OpenModules | None] = (),
) -> None:
    """Appends a cache row for each window; all of them kept the same number of frames.

    `log_weights_BT`: the logarithms of how many frames each state counts as; None: of one.
    `gates`: which modules run for each window; () and None: all.
    """
    cache.join([layer.cross for layer in weights.layers], states_BTD, log_weights_BT, gates)


def step(
    weights: DecoderWeights,
    tokens_BN: Tensor,
    cache: Cache,
    first_row: int = 0,
    wanted: Sequence[int] | None = None,
) -> Tensor:
    """Feeds N new tokens to each row from `first_row` on, and advances the cache.

    Returns float32 logits (B, N, V), or of the `wanted` ones of the N positions only. Rows may
    stand at different lengths and have kept different numbers of frames.
    """
    num_new = tokens_BN.shape[1]
    logits_BNV = read(weights, tokens_BN, cache.reading(first_row, num_new), wanted)
    cache.advance(first_row, num_new)
    return logits_BNV


def read(
    weights: DecoderWeights,
    tokens_BN: Tensor,
    reading: Reading,
    wanted: Sequence[int] | None = None,
) -> Tensor:
    """The same for rows that are about to read; the device's part of it, whatever the host does."""
    x = embed(weights, tokens_BN, reading.positions_BN)
    for number, layer in enumerate(weights.layers):
        if (rows := reading.among(number, ATTENTION)) is not None:
            query, key, value = project(rows.pick(x), layer.attention, weights.heads)
            x = rows.add(x, layer.attention.out(rows.attend(number, query, key, value)))
        if (rows := reading.among(number, ACROSS)) is not None:
            query_BND = layer.cross.query(norm(rows.pick(x), layer.cross.norm))
            query = split_heads(query_BND, weights.heads)
            x = rows.add(x, layer.cross.out(rows.attend_across(number, query)))
        if (rows := reading.among(number, FEED)) is not None:
            x = rows.add(x, feed(rows.pick(x), layer.mlp))
    return logits(weights, x if wanted is None else x[:, list(wanted)])


def embed(weights: DecoderWeights, tokens_BN: Tensor, positions: Tensor) -> Tensor:
    """Positioned states (B, N, D); `positions`: (N,) or (B, N)."""
    token_states = F.embedding(tokens_BN, weights.embedding_VD).to(weights.dtype)
    return token_states + F.embedding(positions, weights.positions_TD)


def logits(weights: DecoderWeights, x_BND: Tensor) -> Tensor:
    return weights.logits(norm(x_BND, weights.norm)).float()
