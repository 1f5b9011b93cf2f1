"""A Whisper checkpoint in hub format -> weights and vocabulary on a device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor
from transformers import WhisperConfig

from service.errors import CheckpointError, ConfigError
from service.model.alignment import Alignment, read_alignment
from service.model.tokens import Vocabulary, read_json, read_tokenizer, read_vocabulary
from service.model.weights import Dims, Weights, from_state_dict, num_parameters

EMBEDDED = Path(__file__).parents[1] / "assets" / "winnow-nano"

WHISPERS_LOGPROB_THRESHOLD = -1.0

_SAFETENSORS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLE = "pytorch_model.bin"
_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "winnow.json",
)


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A loaded model. `name` is what answers carry, `limits` a sentence on what it is not for.

    `tokenizer` is None where the files do not say how text is split; `logprob_threshold` is the
    average log-probability below which its text is doubtful.
    """

    name: str
    weights: Weights
    vocabulary: Vocabulary
    device: torch.device
    dtype: torch.dtype
    num_parameters: int
    alignment: Alignment
    tokenizer: Tokenizer | None = None
    logprob_threshold: float = WHISPERS_LOGPROB_THRESHOLD
    limits: str = ""


def load_checkpoint(name: str, device: str = "auto", dtype: str = "auto") -> Checkpoint:
    """Loads `embedded`, a local folder in hub format, or a hub id.

    `device` auto is CUDA where there is one; `dtype` auto is float16 on CUDA and float32 on CPU,
    whatever the files hold. Raises CheckpointError for a model that is not there, not Whisper,
    incomplete or corrupt, and ConfigError for a device that is not there.
    """
    place = _device(device)
    kind = _dtype(dtype, place)
    if place.type == "cuda" and kind == torch.float32:
        # Else cuDNN rounds the convolutions' inputs to 10 bits: whoever asks for float32 means it.
        torch.backends.cudnn.allow_tf32 = False
    folder = _locate(name)
    config, settings = _read_config(folder)
    dims = _dims(config)
    vocabulary = read_vocabulary(folder, settings, dims.vocab_size, dims.num_frames)
    card, generation = (
        read_json(folder / name) if (folder / name).exists() else {}
        for name in ("winnow.json", "generation_config.json")
    )
    state = {key: _place(key, tensor, place, kind) for key, tensor in _tensors(folder)}
    _check_shapes(state, dims, folder)
    try:
        weights = from_state_dict(state, dims)
    except KeyError as error:
        raise CheckpointError(f"{folder}: the parameter {error} is missing") from error
    return Checkpoint(
        name=str(card.get("name") or (folder.name if Path(name).is_dir() else name)),
        weights=weights,
        vocabulary=vocabulary,
        device=place,
        dtype=kind,
        num_parameters=num_parameters(state),
        alignment=read_alignment(generation, dims),
        tokenizer=read_tokenizer(folder),
        logprob_threshold=float(card.get("logprob_threshold") or WHISPERS_LOGPROB_THRESHOLD),
        limits=str(card.get("limits") or ""),
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r}: there are {torch.cuda.device_count()} CUDA devices")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    dtypes = {d: getattr(torch, d) for d in ("float32", "float16", "bfloat16")}
    if name not in dtypes:
        raise ConfigError(f"dtype {name!r}: use auto, {', '.join(dtypes)}")
    dtype: torch.dtype = dtypes[name]
    return dtype


def _locate(name: str) -> Path:
    if name == "embedded":
        if not EMBEDDED.is_dir():
            raise CheckpointError("the embedded model is not part of this installation")
        return EMBEDDED
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise CheckpointError(
            f"model {name!r}: no such folder, and not a hub id like openai/whisper-tiny"
        )
    return _download(name)


def _download(hub_id: str) -> Path:
    """Fetches what is needed of a hub repository, or finds it in the local cache."""
    weights = (_SAFETENSORS, _INDEX, "model-*-of-*.safetensors")
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=[*_SMALL_FILES, *weights]))
        if not any((folder / file).exists() for file in (_SAFETENSORS, _INDEX)):
            snapshot_download(hub_id, allow_patterns=[_PICKLE])
    except Exception as error:  # which HTTP library lies beneath differs by version
        raise CheckpointError(
            f"model {hub_id!r} is neither a local folder nor to be had from the hub: {error}"
        ) from error
    return folder


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
    """Every parameter of the folder by its full name, one at a time.

    The output projection is left out: Whisper's is the token embedding.
    """
    try:
        for key, tensor in _stored(folder):
            if key != "proj_out.weight":
                yield (key if key.startswith("model.") else f"model.{key}"), tensor
    except (OSError, SafetensorError, RuntimeError, UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{folder}: the weights cannot be read: {error}") from error


def _stored(folder: Path) -> Iterator[tuple[str, Tensor]]:
    if (folder / _SAFETENSORS).exists():
        files = [_SAFETENSORS]
    elif (folder / _INDEX).exists():
        files = sorted(set(read_json(folder / _INDEX).get("weight_map", {}).values()))
    elif (folder / _PICKLE).exists():
        yield from torch.load(
            folder / _PICKLE, map_location="cpu", mmap=True, weights_only=True
        ).items()
        return
    else:
        raise CheckpointError(f"{folder} has no {_SAFETENSORS}, {_INDEX} or {_PICKLE}")
    for file in files:
        with safe_open(folder / file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - it is no mapping
                yield key, tensors.get_tensor(key)


def _place(key: str, tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy always: the file's own pages are unaligned, and change under us if it is rewritten."""
    if not tensor.is_floating_point():
        raise CheckpointError(f"{key} is {tensor.dtype}: quantised checkpoints are not supported")
    return tensor.to(device, dtype, copy=True)


def _check_shapes(state: dict[str, Tensor], dims: Dims, folder: Path) -> None:
    """Catches a config.json that describes another model than the weights."""
    expected = {
        "encoder.conv1.weight": (dims.d_model, dims.num_mels, 3),
        "encoder.embed_positions.weight": (dims.num_frames, dims.d_model),
        "decoder.embed_tokens.weight": (dims.vocab_size, dims.d_model),
        "decoder.embed_positions.weight": (dims.max_tokens, dims.d_model),
    }
    for key, shape in expected.items():
        stored = tuple(state[f"model.{key}"].shape) if f"model.{key}" in state else shape
        if stored != shape:
            raise CheckpointError(f"{folder}: {key} is {stored}, but config.json says {shape}")
    layers = (("encoder", dims.encoder_layers), ("decoder", dims.decoder_layers))
    for side, count in layers:
        if any(key.startswith(f"model.{side}.layers.{count}.") for key in state):
            raise CheckpointError(
                f"{folder}: config.json says {count} {side} layers, the weights have more"
            )
