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
        raise CheckpointError(f"{folder}/config.json: {error}") from error
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
    except (OSError, SafetensorError, RuntimeError, UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{folder}: the weights cannot be read: {error}") from error


def _stored(folder: Path) -> Iterator[tuple[str, Tensor]]:
    if (folder / SAFETENSORS).exists():
        files = [SAFETENSORS]
    elif (folder / INDEX).exists():
        files = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
    elif (folder / PICKLE).exists():
        yield from torch.load(
            folder / PICKLE, map_location="cpu", mmap=True, weights_only=True
        ).items()
        return
    else:
        raise CheckpointError(f"{folder} has no {SAFETENSORS}, {INDEX} or {PICKLE}")
    for file in files:
        with safe_open(folder / file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - it is no mapping
                yield key, tensors.get_tensor(key)
