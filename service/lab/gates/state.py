"""A training on disk: all that its next step depends on, so that a kill costs a few steps."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from service.errors import ConfigError

FILE = "state.safetensors"


@dataclass(slots=True)
class Progress:
    """Where a training stands. `running`: the share of modules off of late; `multiplier`: how hard
    it is pulled to the target; `losses`, `shares`: of the windows of this epoch so far."""

    step: int = 0
    running: float = 0.0
    multiplier: float = 0.0
    losses: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)


def save_state(
    folder: Path,
    identity: Mapping[str, Any],
    progress: Progress,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Whole or not at all."""
    tensors = {f"parameter.{name}": value.detach() for name, value in parameters.items()}
    for number, held in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": value for name, value in held.items()}
    fields = {name: getattr(progress, name) for name in Progress.__slots__}
    about = {"identity": json.dumps(identity, sort_keys=True), "progress": json.dumps(fields)}
    beside = folder / f"{FILE}.{os.getpid()}.tmp"
    save_file({name: value.contiguous() for name, value in tensors.items()}, beside, about)
    beside.replace(folder / FILE)


def load_state(
    folder: Path,
    identity: Mapping[str, Any],
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> Progress:
    """Puts parameters and optimizer where they were. Raises ConfigError for the state of another
    training."""
    path = folder / FILE
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    known = json.loads(about.get("identity", "{}"))
    wanted = json.loads(json.dumps(identity))
    if different := [name for name in wanted if known.get(name) != wanted[name]]:
        raise ConfigError(
            f"{path} is of another training: its {different[0]} is {known.get(different[0])!r}, "
            f"and not {wanted[different[0]]!r}; name another --out, or remove the folder"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"parameter.{name}"])
    held: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "adam":
            number, _, part = rest.partition(".")
            held.setdefault(int(number), {})[part] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": held, "param_groups": groups})
    return Progress(**json.loads(about["progress"]))
