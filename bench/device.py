"""The device that is measured: when it has done what it was told, and what it is."""

from __future__ import annotations

import torch


def await_device(device: torch.device) -> None:
    """Until it has done what it was told: a GPU works behind our back."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def where(device: torch.device) -> str:
    """For people."""
    if device.type == "cpu":
        return f"{torch.get_num_threads()} threads"
    return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
