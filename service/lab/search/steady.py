"""The model as a search reads with it: the same words at every start."""

from __future__ import annotations

import platform

import torch

from service.config import ServerConfig
from service.families.load import load_served
from service.families.whisper import Whisper
from service.model.checkpoint import load_checkpoint, operators_for
from service.model.operators.choose import steady_operators
from service.model.protocol import ModelInfo, SpeechModel
from service.threads import usable_threads

X86 = ("x86_64", "AMD64")


def load_steady(config: ServerConfig) -> SpeechModel:
    """What `load_served` loads, on a CPU by operators that no clock has chosen: a killed search has
    to go on in the words in which it began. Raises what that raises."""
    on_cpu = config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available())
    if config.model == "fake" or not on_cpu:
        return load_served(config)
    kind = config.dtype
    if kind == "auto" and platform.machine() in X86 and steady_operators("int8"):
        # Where they are right there, only the clock of a busy machine says they are slow.
        kind = "int8"
    elif kind == "auto":
        kind = operators_for(kind, torch.device("cpu")).weight_dtype
    operators = steady_operators(kind)
    if operators is None:
        return load_served(config)
    torch.set_num_threads(config.threads or usable_threads())
    checkpoint = load_checkpoint(config.model, "cpu", kind, config.cache_dir, operators)
    return Whisper(checkpoint)


def computed_by(info: ModelInfo) -> str:
    """The device, and on a CPU the operators that a search has there."""
    kind = info.device.partition(":")[0]
    operators = steady_operators(info.weight_dtype) if kind == "cpu" else None
    return f"{kind}, {operators.names}" if operators else kind
