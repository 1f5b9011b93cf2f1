"""Whisper's decoder over explicit weights: cached steps for serving, whole sequences for tests
and training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model.cache import DecodeCache, Member
from service.model.layers import merge_heads, mlp, norm, project, split_heads
from service.model.operators.attention import fused
from service.model.weights import CrossAttention, DecoderWeights


def forward(weights: DecoderWeights, tokens_BN: Tensor, states_BTD: Tensor) -> Tensor:
    """Teacher-forced logits (B, N, V) in float32 for whole sequences, without a cache."""
    return forward_watched(weights, tokens_BN, states_BTD, ())[0]


def forward_watched(
    weights: DecoderWeights,
    tokens_BN: Tensor,
    states_BTD: Tensor,
    watched: Sequence[tuple[int, int]],
    log_weights_T: Tensor | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """`forward`, and the cross-attention (B, N, T) of the watched heads, as (layer, head).

    `log_weights_T`: the logarithms of how many frames each state counts as; None: of one.
    """
    x = _embed(weights, tokens_BN, torch.arange(tokens_BN.shape[1], device=tokens_BN.device))
    attention_BNT = []
    for number, layer in enumerate(weights.layers):
        query, key, value = project(x, layer.attention, weights.heads)
        context = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + layer.attention.out(merge_heads(context))
        query = split_heads(layer.cross.query(norm(x, layer.cross.norm)), weights.heads)
        key, value = cross_keys_values(layer.cross, states_BTD, weights.heads)
        context = fused(query, key, value, log_weights_T)
        for head in (head for at, head in watched if at == number):
            scores = query[:, head] @ key[:, head].transpose(1, 2) / math.sqrt(key.shape[-1])
            if log_weights_T is not None:
                scores = scores + log_weights_T
            attention_BNT.append(scores.float().softmax(-1))
        x = x + layer.cross.out(merge_heads(context))
        x = mlp(x, layer.mlp)
    return _logits(weights, x), attention_BNT


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
    cache: DecodeCache,
    states_BTD: Tensor,
    log_weights_BT: Tensor | None = None,
) -> None:
    """Appends a cache row for each window; all of them kept the same number of frames.

    `log_weights_BT`: the logarithms of how many frames each state counts as; None: of one.
    """
    num_windows, kept, _ = states_BTD.shape
    places = cache.append(kept, num_windows, log_weights_BT)
    for (pool, entry), states_TD in zip(places, states_BTD, strict=True):
        for number, layer in enumerate(weights.layers):
            # A transposed copy is fast where both sides are whole matrices.
            pool.keys[number, entry].flatten(0, 1).copy_(layer.cross.key(states_TD).T)
            pool.values[number, entry].flatten(0, 1).copy_(layer.cross.value(states_TD).T)


def step(
    weights: DecoderWeights,
    tokens_BN: Tensor,
    cache: DecodeCache,
    first_row: int = 0,
    wanted: Sequence[int] | None = None,
) -> Tensor:
    """Feeds N new tokens to each row from `first_row` on, and advances the cache.

    Returns float32 logits (B, N, V), or of the `wanted` ones of the N positions only. Rows may
    stand at different lengths and have kept different numbers of frames.
    """
    num_rows, num_new = tokens_BN.shape
    lengths = cache.lengths[first_row:]
    longest = max(lengths) + num_new
    cache.reserve(longest)
    rows_B1, starts_B1, members = cache.places_from(first_row)
    positions_BN = starts_B1
    if num_new > 1:
        positions_BN = starts_B1 + torch.arange(num_new, device=tokens_BN.device)
    level = num_new == 1 and min(lengths) == max(lengths)
    mask = None if level else _mask(weights, positions_BN, longest)

    x = _embed(weights, tokens_BN, positions_BN)
    for number, layer in enumerate(weights.layers):
        query, key, value = project(x, layer.attention, weights.heads)
        keys, values = cache.keys[number], cache.values[number]
        keys[rows_B1, :, positions_BN] = key.transpose(1, 2)
        values[rows_B1, :, positions_BN] = value.transpose(1, 2)
        rows = slice(first_row, first_row + num_rows)
        context = F.scaled_dot_product_attention(
            query, keys[rows, :, :longest], values[rows, :, :longest], attn_mask=mask
        )
        x = x + layer.attention.out(merge_heads(context))
        query = split_heads(layer.cross.query(norm(x, layer.cross.norm)), weights.heads)
        context = _cross_attend(query, members, number)
        x = x + layer.cross.out(merge_heads(context))
        x = mlp(x, layer.mlp)
    cache.advance(first_row, num_new)
    return _logits(weights, x if wanted is None else x[:, list(wanted)])


def _mask(weights: DecoderWeights, positions_BN: Tensor, longest: int) -> Tensor:
    """What a new token may not attend to, as -inf: (B, 1, N, longest)."""
    ahead = torch.arange(longest, device=positions_BN.device) > positions_BN[..., None]
    zeros = torch.zeros(ahead.shape, dtype=weights.dtype, device=positions_BN.device)
    return zeros.masked_fill_(ahead, -torch.inf)[:, None]


def _cross_attend(query_BHNK: Tensor, members: Sequence[Member], layer: int) -> Tensor:
    """Plain products: with few queries there is no matrix that a fused kernel would save, and these
    read the keys and values at the speed of memory."""
    scale = 1 / math.sqrt(query_BHNK.shape[-1])
    context_BHNK = torch.empty_like(query_BHNK)
    for places, shared, keys, values, log_weights in members:
        some_BHNK = query_BHNK if places is None else query_BHNK[places]
        rows, heads, new, width = some_BHNK.shape
        if shared:  # rows are queries of the same keys
            queries = some_BHNK.transpose(0, 1).reshape(heads, rows * new, width)
        else:
            queries = some_BHNK.reshape(rows * heads, new, width)
        queries = queries.to(keys[layer].dtype)
        if log_weights is None:
            logits = torch.baddbmm(queries.new_zeros(()), queries, keys[layer], beta=0, alpha=scale)
        else:
            logits = torch.baddbmm(log_weights, queries, keys[layer], alpha=scale)
        found = torch.bmm(logits.softmax(-1), values[layer].mT).to(query_BHNK.dtype)
        if shared:
            found_BHNK = found.view(heads, rows, new, width).transpose(0, 1)
        else:
            found_BHNK = found.view(rows, heads, new, width)
        if places is None:
            return found_BHNK
        context_BHNK[places] = found_BHNK
    return context_BHNK


def _embed(weights: DecoderWeights, tokens_BN: Tensor, positions: Tensor) -> Tensor:
    """Positioned states (B, N, D); `positions`: (N,) or (B, N)."""
    return weights.embedding_VD[tokens_BN].to(weights.dtype) + weights.positions_TD[positions]


def _logits(weights: DecoderWeights, x_BND: Tensor) -> Tensor:
    return weights.logits(norm(x_BND, weights.norm)).float()
