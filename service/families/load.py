"""The model that a name means."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from service.config import ServerConfig
from service.errors import CheckpointError
from service.families.ctc import CtcCheckpoint, CtcModel
from service.families.fake import FakeModel
from service.families.whisper import Whisper
from service.memory import give_back
from service.model.checkpoint import device_of, load_checkpoint, operators_for, placed
from service.model.ctc.weights import from_state_dict
from service.model.formats.ctc_folder import read_ctc_folder
from service.model.formats.find import name_of
from service.model.formats.source import CtcFolderError
from service.model.operators.choose import Operators
from service.model.protocol import SpeechModel
from service.model.weights import num_parameters
from service.threads import usable_threads

log = logging.getLogger(__name__)


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


def load_ctc(
    folder: Path,
    name: str = "",
    device: str = "auto",
    dtype: str = "auto",
    operators: Operators | None = None,
) -> CtcModel:
    """`name` is what answers carry: the folder's, if it is "". `device`, `dtype` and `operators`
    are those of `load_checkpoint`. Raises CheckpointError for a model that cannot be served, and
    ConfigError for a device or type that is not there."""
    name = name or folder.name
    place = device_of(device)
    operators = operators or operators_for(dtype, place)
    if place.type == "cuda" and operators.dtype == torch.float32:
        torch.backends.cudnn.allow_tf32 = False  # as for Whisper's
    source = read_ctc_folder(folder, name)
    state = {key: placed(key, tensor, place, operators.dtype) for key, tensor in source.tensors()}
    parameters = num_parameters(state)
    try:
        weights = from_state_dict(state, source.dims, operators)
    except CheckpointError as error:
        raise CheckpointError(f"{source.place}: {error}") from error
    log.info("%s: %s", name, operators.names)
    return CtcModel(
        CtcCheckpoint(
            name=name,
            weights=weights,
            vocabulary=source.vocabulary,
            language=source.language,
            normalises=source.normalises,
            device=place,
            dtype=operators.dtype,
            weight_dtype=operators.weight_dtype,
            num_parameters=parameters,
            origin="" if folder.name == name else f"https://huggingface.co/{name}",
        )
    )
