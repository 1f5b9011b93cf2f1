"""The few operations that encoder and decoder share, over explicit weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model.weights import Mlp, Norm, SelfAttention


def norm(x: Tensor, weights: Norm) -> Tensor:
    return torch.layer_norm(x, (x.shape[-1],), weights.weight, weights.bias)


def mlp(states_BTD: Tensor, weights: Mlp) -> Tensor:
    """The residual feed-forward half of a layer."""
    return states_BTD + feed(states_BTD, weights)


def feed(states_BTD: Tensor, weights: Mlp) -> Tensor:
    """What that half adds."""
    return weights.down(F.gelu(weights.up(norm(states_BTD, weights.norm))))


def project(
    states_BTD: Tensor, attention: SelfAttention, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of a layer's self-attention, each (B, H, T, K)."""
    whole_BTE = attention.query_key_value(norm(states_BTD, attention.norm))
    parts = whole_BTE.view(*whole_BTE.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = parts.unbind(0)
    return query, key, value


def split_heads(x_BTD: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, H, T, K)."""
    return x_BTD.view(*x_BTD.shape[:2], heads, -1).transpose(1, 2)


def merge_heads(x_BHTK: Tensor) -> Tensor:
    """(B, H, T, K) -> (B, T, D)."""
    return x_BHTK.transpose(1, 2).flatten(2)
