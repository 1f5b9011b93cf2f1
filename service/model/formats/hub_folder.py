"""A folder in the hub's format: config.json, safetensors (or a pickle), tokenizer files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import WhisperConfig

from service.errors import CheckpointError
from service.model.formats.source import Source
from service.model.tokens import read_ids, read_json, read_tokenizer
from service.model.weights import Dims

SAFETENSORS, INDEX, PICKLE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
)


def read_hub_folder(folder: Path) -> Source:
    """Raises CheckpointError for a model that is not Whisper, incomplete or corrupt."""
    config, settings = _read_config(folder)
    path = folder / "generation_config.json"
    generation = read_json(path) if path.exists() else {}
    return Source(
        place=str(folder),
        said_by="config.json",
        dims=_dims(config),
        ids=read_ids(folder),
        settings={**settings, **{k: v for k, v in generation.items() if v is not None}},
        tokenizer=read_tokenizer(folder),
        tensors=partial(_tensors, folder),
    )


def _read_config(folder: Path) -> tuple[WhisperConfig, dict[str, Any]]:
    settings = read_json(folder / "config.json")
    kind = settings.get("model_type")
    if kind != "whisper":
        raise CheckpointError(f"{folder}: model_type is {kind!r}; only 'whisper' is supported")
    try:
        config = WhisperConfig.from_dict(settings)
    except Exception as error:  # its validation raises classes of its own choosing
        raise CheckpointError(f"{folder}/config.json: {' '.join(str(error).split())}") from error
    supported = {"activation_function": "gelu", "scale_embedding": False}
    for key, value in {**supported, "tie_word_embeddings": True}.items():
        # Of the file: not every version of transformers has them all on its config.
        if settings.get(key, value) != value:
            raise CheckpointError(f"{folder}/config.json: {key} must be {value!r}, as Whisper has")
    return config, settings


def _dims(config: WhisperConfig) -> Dims:
    return Dims(
        num_mels=config.num_mel_bins,
        num_frames=config.max_source_positions,
        d_model=config.d_model,
        encoder_heads=config.encoder_attention_heads,
        decoder_heads=config.decoder_attention_heads,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        vocab_size=config.vocab_size,
        max_tokens=config.max_target_positions,
    )


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The output projection is left out: Whisper's is the token embedding."""
    try:
        for key, tensor in _stored(folder):
            if key != "proj_out.weight":
                yield (key if key.startswith("model.") else f"model.{key}"), tensor
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the weights cannot be read: {error}") from error


def _stored(folder: Path) -> Iterator[tuple[str, Tensor]]:
    if (folder / SAFETENSORS).exists():
        files = [SAFETENSORS]
    elif (folder / INDEX).exists():
        files = _shards(folder / INDEX)
    elif (folder / PICKLE).exists():
        yield from tensors_of(read_pickle(folder / PICKLE), folder / PICKLE).items()
        return
    else:
        raise CheckpointError(f"{folder} has no {SAFETENSORS}, {INDEX} or {PICKLE}")
    for file in files:
        with safe_open(folder / file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - it is no mapping
                yield key, tensors.get_tensor(key)


def _shards(index: Path) -> list[str]:
    """The files beside the index that it names."""
    places = read_json(index).get("weight_map")
    files: list[str] = list(places.values()) if isinstance(places, dict) else [""]
    if not all(isinstance(file, str) and file and Path(file).name == file for file in files):
        raise CheckpointError(f"{index}: weight_map must name a file beside it for each parameter")
    return sorted(set(files))


def read_pickle(path: Path) -> object:
    """What `torch.save` wrote, without running its code. Raises CheckpointError."""
    try:
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(f"{path} cannot be read: it is no file of tensors alone") from error
    except Exception as error:  # whatever a damaged pickle runs into
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path} cannot be read: {why[0]}") from error


def tensors_of(state: object, path: Path) -> dict[str, Tensor]:
    """A state dict as it should be. Raises CheckpointError for anything else."""
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in state.items()
    ):
        raise CheckpointError(f"{path}: its state dict holds something else than tensors")
    return dict(state)
