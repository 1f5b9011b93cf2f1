"""The model that a name means."""

from __future__ import annotations

from pathlib import Path

import torch

from service.config import ServerConfig
from service.memory import give_back
from service.model.checkpoint import load_checkpoint
from service.model.ctc.load import load_ctc
from service.model.fake import FakeModel
from service.model.formats.find import name_of
from service.model.formats.source import CtcFolderError
from service.model.protocol import SpeechModel
from service.model.whisper import Whisper
from service.threads import usable_threads


def load_model(
    name: str, device: str = "auto", dtype: str = "auto", cache_dir: Path | None = None
) -> SpeechModel:
    """`fake`, anything that `load_checkpoint` takes, or a folder or hub id of a CTC model; raises
    what `load_checkpoint` raises."""
    if name == "fake":
        return FakeModel()
    try:
        return Whisper(load_checkpoint(name, device, dtype, cache_dir))
    except CtcFolderError as found:
        folder = found.folder
    return load_ctc(folder, name_of(name), device, dtype)


def load_served(config: ServerConfig) -> SpeechModel:
    """The model of these settings, and the threads that they give to the one that calls: how many
    compute is torch's setting of each thread. Raises what `load_model` raises."""
    torch.set_num_threads(config.threads or usable_threads())
    model = load_model(config.model, config.device, config.dtype, config.cache_dir)
    give_back()  # the weights as they were stored: twice to four times what is kept of them
    return model
