"""A folder with a CTC model -> the model on a device."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from service.errors import CheckpointError
from service.model.checkpoint import device_of, operators_for, placed
from service.model.ctc.model import CtcCheckpoint, CtcModel
from service.model.ctc.weights import from_state_dict
from service.model.formats.ctc_folder import read_ctc_folder
from service.model.operators.choose import Operators
from service.model.weights import num_parameters

log = logging.getLogger(__name__)


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
