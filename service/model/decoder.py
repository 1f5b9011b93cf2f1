"""Whisper's decoder over explicit weights: cached steps for serving, whole sequences for tests
and training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model.cache import DecodeCache
from service.model.layers import linear, merge_heads, mlp, norm, split_heads
from service.model.weights import Attention, DecoderWeights


def forward(weights: DecoderWeights, tokens_BN: Tensor, states_BTD: Tensor) -> Tensor:
    """Teacher-forced logits (B, N, V) in float32 for whole sequences, without a cache."""
    return forward_watched(weights, tokens_BN, states_BTD, ())[0]


def forward_watched(
    weights: DecoderWeights,
    tokens_BN: Tensor,
    states_BTD: Tensor,
    watched: Sequence[tuple[int, int]],
) -> tuple[Tensor, list[Tensor]]:
    """`forward`, and the cross-attention (B, N, T) of the watched heads, as (layer, head)."""
    x = weights.embedding_VD[tokens_BN] + weights.positions_TD[: tokens_BN.shape[1]]
    attention_BNT = []
    for number, layer in enumerate(weights.layers):
        normed = norm(x, layer.attention.norm)
        query, key, value = (
            split_heads(linear(normed, w), weights.heads)
            for w in (layer.attention.query, layer.attention.key, layer.attention.value)
        )
        context = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + linear(merge_heads(context), layer.attention.out)
        query = split_heads(linear(norm(x, layer.cross.norm), layer.cross.query), weights.heads)
        key, value = cross_keys_values(layer.cross, states_BTD, weights.heads)
        context = F.scaled_dot_product_attention(query, key, value)
        for head in (head for at, head in watched if at == number):
            scores = query[:, head] @ key[:, head].transpose(1, 2) / math.sqrt(key.shape[-1])
            attention_BNT.append(scores.float().softmax(-1))
        x = x + linear(merge_heads(context), layer.cross.out)
        x = mlp(x, layer.mlp)
    return _logits(weights, x), attention_BNT


def cross_keys_values(cross: Attention, states_BTD: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """What a layer's cross-attention reads of the encoder: two of (B, H, T, K)."""
    return (
        split_heads(linear(states_BTD, cross.key), heads),
        split_heads(linear(states_BTD, cross.value), heads),
    )


def join(weights: DecoderWeights, cache: DecodeCache, states_BTD: Tensor) -> None:
    """Appends a cache row for each window; all of them kept the same number of frames."""
    pairs = [cross_keys_values(layer.cross, states_BTD, weights.heads) for layer in weights.layers]
    keys_LBHTK = torch.stack([key for key, _ in pairs])
    values_LBHTK = torch.stack([value for _, value in pairs])
    for window in range(states_BTD.shape[0]):
        cache.append(keys_LBHTK[:, window], values_LBHTK[:, window])


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
    device = tokens_BN.device
    lengths = cache.lengths[first_row:]
    starts_B1 = torch.tensor(lengths, device=device)[:, None]
    positions_BN = starts_B1 + torch.arange(num_new, device=device)
    rows_B1 = torch.arange(first_row, first_row + num_rows, device=device)[:, None]
    longest = max(lengths) + num_new
    visible = (torch.arange(longest, device=device) <= positions_BN[..., None])[:, None]
    members = _pool_members(cache, first_row, device)

    x = weights.embedding_VD[tokens_BN] + weights.positions_TD[positions_BN]
    for number, layer in enumerate(weights.layers):
        normed = norm(x, layer.attention.norm)
        query = split_heads(linear(normed, layer.attention.query), weights.heads)
        keys, values = cache.keys[number], cache.values[number]
        keys[rows_B1, :, positions_BN] = _heads(linear(normed, layer.attention.key), weights.heads)
        values[rows_B1, :, positions_BN] = _heads(
            linear(normed, layer.attention.value), weights.heads
        )
        rows = slice(first_row, first_row + num_rows)
        context = F.scaled_dot_product_attention(
            query, keys[rows, :, :longest], values[rows, :, :longest], attn_mask=visible
        )
        x = x + linear(merge_heads(context), layer.attention.out)
        query = split_heads(linear(norm(x, layer.cross.norm), layer.cross.query), weights.heads)
        context = _cross_attend(query, members, number)
        x = x + linear(merge_heads(context), layer.cross.out)
        x = mlp(x, layer.mlp)
    cache.lengths[first_row:] = [length + num_new for length in lengths]
    return _logits(weights, x if wanted is None else x[:, list(wanted)])


_Member = tuple[Tensor, Tensor, Tensor]


def _pool_members(cache: DecodeCache, first_row: int, device: torch.device) -> list[_Member]:
    """For each pool with rows from `first_row` on: those rows (from 0), their keys and values.

    Rows join at the end of both the cache and their pool, so a pool's share is a slice.
    """
    members = []
    for pool in cache.pools.values():
        old = sum(row < first_row for row in pool.rows)
        if rows := pool.rows[old:]:
            entries = slice(old, old + len(rows))
            index = torch.tensor(rows, device=device) - first_row
            members.append((index, pool.keys[:, entries], pool.values[:, entries]))
    return members


def _cross_attend(query_BHNK: Tensor, members: list[_Member], layer: int) -> Tensor:
    context = torch.empty_like(query_BHNK)
    for index, keys, values in members:
        context[index] = F.scaled_dot_product_attention(
            query_BHNK[index], keys[layer], values[layer]
        )
    return context


def _heads(x_BND: Tensor, heads: int) -> Tensor:
    """(B, N, D) -> (B, N, H, K), the order in which the cache is indexed."""
    return x_BND.view(*x_BND.shape[:2], heads, -1)


def _logits(weights: DecoderWeights, x_BND: Tensor) -> Tensor:
    return F.linear(norm(x_BND, weights.norm), weights.embedding_VD).float()
