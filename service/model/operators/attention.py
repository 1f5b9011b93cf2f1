"""Attention of a window's frames on one another, in the ways that a processor may like best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# Query, key and value, each (B, H, T, K), and what is added to every query's logits, (T,), (B, T)
# where windows differ, or None -> context (B, H, T, K).
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def fused(
    query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, bias_BT: Tensor | None
) -> Tensor:
    """torch's own, which never holds the whole matrix."""
    mask = None
    if bias_BT is not None:
        mask = bias_BT.view(-1, 1, 1, bias_BT.shape[-1]).expand(-1, -1, query_BHTK.shape[2], -1)
    return F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, mask)


def by_head(dtype: torch.dtype) -> Attend:
    """Head by head, the products in `dtype`: the matrix of one head fits the cache."""

    def attend(
        query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, bias_BT: Tensor | None
    ) -> Tensor:
        scale = 1 / math.sqrt(query_BHTK.shape[-1])
        context_BHTK = torch.empty(query_BHTK.shape, dtype=dtype, device=query_BHTK.device)
        whole = ((query_BHTK * scale).to(dtype), key_BHTK.to(dtype), value_BHTK.to(dtype))
        heads = (each.flatten(0, 1) for each in (*whole, context_BHTK))
        biases = _by_window(bias_BT, *query_BHTK.shape[:2])
        for query_TK, key_TK, value_TK, context_TK, bias_T in zip(*heads, biases, strict=True):
            logits_TT = query_TK @ key_TK.T
            if bias_T is not None:
                logits_TT += bias_T
            torch.mm(logits_TT.softmax(-1), value_TK, out=context_TK)
        return context_BHTK.to(query_BHTK.dtype)

    return attend


def _by_window(bias_BT: Tensor | None, num_windows: int, num_heads: int) -> Sequence[Tensor | None]:
    """That of each head of each window."""
    if bias_BT is None:
        return [None] * (num_windows * num_heads)
    each = bias_BT.view(-1, bias_BT.shape[-1]).expand(num_windows, -1)
    return [bias_T for bias_T in each for _ in range(num_heads)]


def attend_biased(
    query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, bias_BHTT: Tensor
) -> Tensor:
    """torch's own, with what is added to the logits of each query and key."""
    return F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, bias_BHTT)


def attend_near(
    attend: Attend,
    query_BHTK: Tensor,
    key_BHTK: Tensor,
    value_BHTK: Tensor,
    bias_BT: Tensor | None,
    reach: int,
) -> Tensor:
    """`attend`, but to what is near: to at least `reach` states on either side.

    In blocks of twice as many, each of which attends to itself and `reach` around it, so that the
    products stay whole matrices.
    """
    num_states, contexts = query_BHTK.shape[2], []
    for first in range(0, num_states, 2 * reach):
        end = min(first + 2 * reach, num_states)
        near = slice(max(0, first - reach), min(num_states, end + reach))
        bias = None if bias_BT is None else bias_BT[..., near]
        block = query_BHTK[:, :, first:end]
        contexts.append(attend(block, key_BHTK[:, :, near], value_BHTK[:, :, near], bias))
    return torch.cat(contexts, dim=2)


def attend_and_score(
    query_BHTK: Tensor,
    key_BHTK: Tensor,
    value_BHTK: Tensor,
    bias_BHTT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The context, and what each frame receives of each head: (B, H, T), float32.

    `received[h, t]` = mean over queries q of `softmax(QK^T / sqrt(d))[h, q, t]`, `bias_BHTT` added
    to the logits. One head at a time, because the matrices of all of them are what would not fit
    the cache.
    """
    scale = 1 / math.sqrt(query_BHTK.shape[-1])
    heads = ((query_BHTK * scale).flatten(0, 1), key_BHTK.flatten(0, 1), value_BHTK.flatten(0, 1))
    biases = [None] * len(heads[0]) if bias_BHTT is None else bias_BHTT.flatten(0, 1)
    contexts, received = [], []
    for query_TK, key_TK, value_TK, bias_TT in zip(*heads, biases, strict=True):
        logits_TT = query_TK @ key_TK.T
        if bias_TT is not None:
            logits_TT += bias_TT
        weights_TT = torch.softmax(logits_TT, dim=-1, dtype=torch.float32)
        contexts.append(weights_TT.to(value_TK.dtype) @ value_TK)
        received.append(weights_TT.mean(dim=0))
    shape = query_BHTK.shape
    return torch.stack(contexts).view(shape), torch.stack(received).view(shape[:3])
