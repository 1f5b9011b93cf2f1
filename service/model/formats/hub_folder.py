"""A folder in the hub's format: config.json, safetensors (or a pickle), tokenizer files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from service.errors import CheckpointError
from service.model.formats.openai_facts import Words, settings_of
from service.model.formats.source import CTC_KINDS, CtcFolderError, Source
from service.model.tokens import read_ids, read_json, read_tokenizer
from service.model.weights import Dims

SAFETENSORS, INDEX, PICKLE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
)

# The second is LiteASR's: the same model, some of whose weights are two factors.
KINDS = ("whisper", LITE := "lite-whisper")
VOCABULARIES = ("tokenizer.json", "vocab.json")
# What is computed here: a model of another kind would be read as one of this.
_SUPPORTED = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}
# Our names to config.json's, and what those mean that it leaves out (transformers 5.24,
# `WhisperConfig`). Its classes are not used: importing them takes longer than loading a model.
_DIMS = {
    "num_mels": ("num_mel_bins", 80),
    "num_frames": ("max_source_positions", 1500),
    "d_model": ("d_model", 384),
    "encoder_heads": ("encoder_attention_heads", 6),
    "decoder_heads": ("decoder_attention_heads", 6),
    "encoder_layers": ("encoder_layers", 4),
    "decoder_layers": ("decoder_layers", 4),
    "vocab_size": ("vocab_size", 51865),
    "max_tokens": ("max_target_positions", 448),
}


def read_hub_folder(folder: Path, other: Callable[[int], Words] | None = None) -> Source:
    """`other` gives a vocabulary of as many entries: LiteASR's folders are published without one.

    Raises CheckpointError for a model that is not Whisper, incomplete or corrupt.
    """
    config = _read_config(folder)
    path = folder / "generation_config.json"
    generation = read_json(path) if path.exists() else {}
    dims = _dims(config)
    settings = {**config, **{k: v for k, v in generation.items() if v is not None}}
    bare = config["model_type"] == LITE and not any((folder / v).exists() for v in VOCABULARIES)
    if other is None or not bare:
        words: tuple[Mapping[str, int], Tokenizer | None]
        words = read_ids(folder), read_tokenizer(folder)
    else:
        words = ids, tokenizer = other(dims.vocab_size)
        settings = {**settings_of(dims, ids, tokenizer, folder.name), **settings}
    return Source(
        place=str(folder),
        said_by="config.json",
        dims=dims,
        ids=words[0],
        settings=settings,
        tokenizer=words[1],
        tensors=partial(_tensors, folder),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind in CTC_KINDS:
        raise CtcFolderError(folder, kind)
    if kind not in KINDS:
        only = " and ".join(map(repr, KINDS))
        raise CheckpointError(f"{folder}: model_type is {kind!r}; only {only} are supported")
    for key, value in _SUPPORTED.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"{folder}/config.json: {key} must be {value!r}, as Whisper has")
    return config


def _dims(config: Mapping[str, Any]) -> Dims:
    """Believed by nobody yet: `checkpoint` looks at what they are."""
    return Dims(**{ours: config.get(name, usual) for ours, (name, usual) in _DIMS.items()})


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The output projection is left out: Whisper's is the token embedding."""
    try:
        for key, tensor in stored_tensors(folder):
            if key != "proj_out.weight":
                yield (key if key.startswith("model.") else f"model.{key}"), tensor
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the weights cannot be read: {error}") from error


def stored_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Under the names that the files have. Raises CheckpointError, or what safetensors raises."""
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
