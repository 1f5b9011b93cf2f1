"""Windows of noise, and the loop that drives a decode batch."""

from __future__ import annotations

import torch
from torch import Tensor

from service.model.protocol import DecodeBatch
from service.types import Hypothesis


def noise(num_windows: int, num_mels: int = 80, seed: int = 0) -> Tensor:
    """(B, mels, 3000): windows that differ in level and in spectrum."""
    source = torch.Generator().manual_seed(seed)
    colour = torch.randn(num_windows, num_mels, 1, generator=source)
    return torch.randn(num_windows, num_mels, 3000, generator=source) * 0.5 + colour * 0.3


def drain(batch: DecodeBatch) -> dict[int, Hypothesis]:
    """Steps until all windows are done."""
    done: dict[int, Hypothesis] = {}
    while len(batch):
        done |= batch.step()
    return done


def finish(batch: DecodeBatch, num_windows: int) -> list[Hypothesis]:
    """Steps until windows 0, 1, ... are all done."""
    done = drain(batch)
    return [done[window] for window in range(num_windows)]
