"""What gates are trained by: noise, straight-through decisions, and the pull to a target."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-6


def logistic(num: int, seed: int, step: int, number: int = 0) -> Tensor:
    """The difference of two Gumbel variables, (num,), the same for the same seed, step and number:
    whoever goes on after a kill draws what would have been drawn."""
    source = torch.Generator().manual_seed(hash((seed, step, number)) & (2**63 - 1))
    uniform = torch.rand(num, generator=source).clamp(TINY, 1 - TINY)
    return uniform.log() - (-uniform).log1p()


def straight_through(logits_M: Tensor, noise_M: Tensor, temperature: float) -> Tensor:
    """Gumbel-softmax of two choices, on or off: 1.0 or 0.0, with the gradient of the soft choice
    (arXiv 1611.01144)."""
    soft_M = ((logits_M + noise_M) / temperature).sigmoid()
    hard_M = (soft_M > 0.5).to(soft_M.dtype)
    return hard_M + (soft_M - soft_M.detach())


def share_off(logits_M: Tensor, temperature: float) -> Tensor:
    """The share of modules that are off without noise, as at run time; its gradient is soft."""
    return 1 - straight_through(logits_M, torch.zeros_like(logits_M), temperature).mean()


def pull(share: Tensor, running: float, target: float, multiplier: float, weight: float) -> Tensor:
    """What it costs to be off the target: `multiplier (t - s) + weight (t - s)^2`, an augmented
    Lagrangian. `s` has the value of the `running` share, of many windows, so that each may have one
    of its own; its gradient is this window's."""
    missing = target - (running + (share - share.detach()))
    return multiplier * missing + weight * missing.square()


def annealed(first: float, last: float, done: float) -> float:
    """From one temperature to the other as `done` goes from 0 to 1, by equal factors."""
    return float(first * (last / first) ** min(1.0, max(0.0, done)))
