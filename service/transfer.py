"""From the host to a device, and among what is there, without waiting for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """What the host has made, on the device. Nobody waits until it is there: what the device is
    told after this finds it. Torch's own copy waits for all that was told before."""
    if device.type != "cuda":
        return values.to(device)
    try:
        pinned = values.pin_memory()
    except RuntimeError:  # the host has none left that can be
        return values.to(device)
    return pinned.to(device, non_blocking=True)


def picked(x_B: Tensor, windows: Sequence[int]) -> Tensor:
    """Some windows of a batch, in this order. By a list, torch would send it and wait for that."""
    if tuple(windows) == tuple(range(len(x_B))):
        return x_B
    return torch.stack([x_B[window] for window in windows])
