"""A Whisper model as some format gives it -> weights and vocabulary on a device."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from service.config import check_dtype
from service.errors import CheckpointError, ConfigError
from service.model.alignment import Alignment, read_alignment
from service.model.formats.find import find_model
from service.model.formats.source import Source
from service.model.operators.choose import Operators, cpu_operators, plain_operators
from service.model.tokens import Vocabulary, make_vocabulary
from service.model.weights import Dims, Weights, from_state_dict, num_parameters

log = logging.getLogger(__name__)

# Twice what any Whisper has, and more: what a dimension may be that is believed.
MOST, _MOST = 1_000_000, {"encoder_layers": 128, "decoder_layers": 128}


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A loaded model. `name` is what answers carry. `dtype` is of what is computed,
    `weight_dtype` of the products' weights.

    `source` is where its parameters can be read again, `operators` what it is served by.
    `tokenizer` is None where the files do not say how text is split. `origin`, `license` and
    `owner` are "" where they are not known.
    """

    name: str
    weights: Weights
    vocabulary: Vocabulary
    device: torch.device
    dtype: torch.dtype
    weight_dtype: str
    num_parameters: int
    alignment: Alignment
    source: Source
    operators: Operators
    tokenizer: Tokenizer | None = None
    origin: str = ""
    license: str = ""
    owner: str = ""


def load_checkpoint(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    cache_dir: Path | None = None,
    operators: Operators | None = None,
) -> Checkpoint:
    """Loads what `formats.find_model` finds: a folder, a file, a name or a hub id.

    `device` auto is CUDA where there is one; `dtype` auto is float16 on CUDA, and on a CPU what
    `operators.choose` finds to be right and fast, whatever the files hold; `operators` go before
    both. Raises CheckpointError
    for a model that is not there, not Whisper, incomplete or corrupt, and ConfigError for a device
    that is not there, or a type that it does not do.
    """
    place = device_of(device)
    operators = operators or operators_for(dtype, place)
    kind = operators.dtype
    if place.type == "cuda" and kind == torch.float32:
        # Else cuDNN rounds the convolutions' inputs to 10 bits: whoever asks for float32 means it.
        torch.backends.cudnn.allow_tf32 = False
    try:
        found = find_model(name, cache_dir)
    except (OSError, ValueError) as error:  # a folder that may not be read, an absurd name
        why = getattr(error, "strerror", None) or error
        raise CheckpointError(f"model {name!r} cannot be read: {why}") from error
    source, dims = found.source, found.source.dims
    state = read_state(source, place, kind)
    parameters = num_parameters(state)
    try:
        weights = from_state_dict(state, dims, operators)
        vocabulary = make_vocabulary(source.ids, source.settings, dims.vocab_size, dims.num_frames)
        alignment = read_alignment(source.settings, dims)
    except KeyError as error:
        raise CheckpointError(f"{source.place}: the parameter {error} is missing") from error
    except CheckpointError as error:
        raise CheckpointError(f"{source.place}: {error}") from error
    log.info("%s: %s", found.name, operators.names)
    return Checkpoint(
        name=found.name,
        weights=weights,
        vocabulary=vocabulary,
        device=place,
        dtype=kind,
        weight_dtype=operators.weight_dtype,
        num_parameters=parameters,
        alignment=alignment,
        source=source,
        operators=operators,
        tokenizer=source.tokenizer,
        origin=found.origin,
        license=found.license,
        owner=found.owner,
    )


def read_state(
    source: Source, device: torch.device, dtype: torch.dtype, prefix: str = ""
) -> dict[str, Tensor]:
    """The parameters whose names begin so, on a device. Raises CheckpointError for any that are
    not what the model's dimensions say."""
    _check_dims(source)
    state = {
        key: placed(key, tensor, device, dtype)
        for key, tensor in source.tensors()
        if key.startswith(prefix)
    }
    _check_shapes(state, source)
    return state


def device_of(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Raises ConfigError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r}: there are {torch.cuda.device_count()} CUDA devices")
    return device


def operators_for(dtype: str, device: torch.device) -> Operators:
    """What a device is served by. Raises ConfigError for a type that it does not do."""
    check_dtype(dtype)
    if device.type == "cpu":
        found = cpu_operators(dtype)
        if found is None:
            raise ConfigError("dtype int8: nothing multiplies 8 bits rightly on this processor")
        return found
    if dtype == "int8":
        raise ConfigError(f"dtype int8 is for a CPU: on {device} use auto or float16")
    return plain_operators(torch.float16 if dtype == "auto" else getattr(torch, dtype))


def placed(key: str, tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The parameter `key` on a device. Raises CheckpointError for what is no plain one.

    A copy always: the file's own pages are unaligned, and change under us if it is rewritten. On a
    CPU what is stored in less than `dtype` stays as it is until it is packed.
    """
    if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
        raise CheckpointError(f"{key} is {tensor.dtype}: quantised checkpoints are not supported")
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{key} says it is larger than what is stored of it")
    if device.type == "cpu" and tensor.element_size() < dtype.itemsize:
        dtype = tensor.dtype
    return tensor.to(device, dtype, copy=True)


def _check_dims(source: Source) -> None:
    """Catches what would only be seen once a model of that size was made."""
    for field in fields(source.dims):
        value = getattr(source.dims, field.name)
        if type(value) is not int or not 1 <= value <= _MOST.get(field.name, MOST):
            raise CheckpointError(
                f"{source.place}: {source.said_by} says {value!r} for {field.name}"
            )


def _check_shapes(state: dict[str, Tensor], source: Source) -> None:
    """Catches dimensions that describe another model than the weights."""
    dims, place = source.dims, source.place
    for key, tensor in state.items():
        shape = _shape(key, dims, state)
        if shape is not None and tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{place}: {key.removeprefix('model.')} is {tuple(tensor.shape)}, but "
                f"{source.said_by} says {shape}"
            )
    layers = (("encoder", dims.encoder_layers), ("decoder", dims.decoder_layers))
    for side, count in layers:
        if any(key.startswith(f"model.{side}.layers.{count}.") for key in state):
            raise CheckpointError(
                f"{place}: {source.said_by} says {count} {side} layers, the weights have more"
            )
    for side, heads in (("encoder", dims.encoder_heads), ("decoder", dims.decoder_heads)):
        if heads < 1 or dims.d_model % heads:
            raise CheckpointError(
                f"{place}: {dims.d_model} cannot be divided among {heads} {side} heads"
            )


def _shape(key: str, dims: Dims, state: dict[str, Tensor]) -> tuple[int, ...] | None:
    """What a parameter of Whisper's is shaped like, None for one of another name."""
    width = dims.d_model
    whole = {
        "model.encoder.conv1.weight": (width, dims.num_mels, 3),
        "model.encoder.conv2.weight": (width, width, 3),
        "model.encoder.embed_positions.weight": (dims.num_frames, width),
        "model.decoder.embed_tokens.weight": (dims.vocab_size, width),
        "model.decoder.embed_positions.weight": (dims.max_tokens, width),
    }
    if key in whole:
        return whole[key]
    layer, name, kind = f".{key}".rsplit(".", 2)
    if kind in ("weight1", "weight2"):
        whole_shape = _shape(f"{layer}.{name}.weight"[1:], dims, state)
        inner = state.get(f"{layer}.{name}.weight1"[1:])
        if whole_shape is None or inner is None:
            return None
        rank = inner.shape[-1]
        return (whole_shape[1], rank) if kind == "weight1" else (rank, whole_shape[0])
    if name in ("fc1", "fc2"):
        # As wide as its bias says: of this alone no config is read.
        bias = state.get(f"{layer}.fc1.bias")
        wide = 4 * width if bias is None else bias.numel()
        rows, columns = (wide, width) if name == "fc1" else (width, wide)
        return (rows, columns) if kind == "weight" else (rows,)
    if name.endswith("_proj") and kind == "weight":
        return (width, width)
    return (width,) if name.endswith(("_proj", "layer_norm", "conv1", "conv2")) else None
