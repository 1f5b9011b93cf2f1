"""The few operations that encoder and decoder share, over explicit weights."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from service.model.weights import Linear, Mlp, Norm


def linear(x: Tensor, weights: Linear) -> Tensor:
    return F.linear(x, weights.weight, weights.bias)


def norm(x: Tensor, weights: Norm) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), weights.weight, weights.bias)


def mlp(states_BTD: Tensor, weights: Mlp) -> Tensor:
    """The residual feed-forward half of a layer."""
    hidden = F.gelu(linear(norm(states_BTD, weights.norm), weights.up))
    return states_BTD + linear(hidden, weights.down)


def split_heads(x_BTD: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, H, T, K)."""
    return x_BTD.view(*x_BTD.shape[:2], heads, -1).transpose(1, 2)


def merge_heads(x_BHTK: Tensor) -> Tensor:
    """(B, H, T, K) -> (B, T, D)."""
    return x_BHTK.transpose(1, 2).flatten(2)
