"""From the host to a device."""

from __future__ import annotations

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
