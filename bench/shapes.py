"""A checkpoint in the true shape of any of Whisper's models, random weights.

Speed and memory depend on shapes, not on values. The row of end-of-text in the embedding is 0, so
that its logit is 0 in any program, which some of the other tokens always surpass: a window goes
on until its limit.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from service.errors import ConfigError
from service.model.alignment import read_alignment
from service.model.checkpoint import Checkpoint, load_checkpoint, operators_for
from service.model.formats.cache import write_safetensors
from service.model.formats.hub_folder import SAFETENSORS, read_hub_folder
from service.model.weights import Dims, from_state_dict, num_parameters
from tests.checkpoints import SHAPES, write_checkpoint

MELS_OF_128 = ("large", "turbo", "distil")
EMBEDDING = "model.decoder.embed_tokens.weight"


def checkpoint_of(shape: str, device: str, dtype: str) -> Checkpoint:
    """Vocabulary and settings of a small one, and weights drawn where they are used."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / shape
        _write_small(folder, shape)
        small = load_checkpoint(str(folder), device=device, dtype=dtype)
    d_model, heads, encoder_layers, decoder_layers = SHAPES[shape]
    dims = replace(
        small.weights.dims,
        d_model=d_model,
        encoder_heads=heads,
        decoder_heads=heads,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
    )
    state = random_state(dims, small.device)
    state[EMBEDDING][small.vocabulary.eot] = 0
    parameters = num_parameters(state)
    return replace(
        small,
        name=shape,
        weights=from_state_dict(state, dims, operators_for(dtype, small.device)),
        num_parameters=parameters,
        alignment=read_alignment({}, dims),
    )


def write_shape(folder: Path, shape: str) -> Path:
    """Writes and returns a folder of the hub's format, in float16; whole, or not at all.

    `shape` is one of `tests.checkpoints.SHAPES`. Raises ConfigError for another.
    """
    if shape not in SHAPES:
        raise ConfigError(f"shape {shape!r}: use one of {', '.join(SHAPES)}")
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    _write_small(part, shape)
    d_model, heads, encoder_layers, decoder_layers = SHAPES[shape]
    settings = json.loads((part / "config.json").read_text())
    settings |= {"d_model": d_model, "num_hidden_layers": encoder_layers}
    for side, layers in (("encoder", encoder_layers), ("decoder", decoder_layers)):
        settings |= {f"{side}_layers": layers, f"{side}_attention_heads": heads}
        settings[f"{side}_ffn_dim"] = 4 * d_model
    (part / "config.json").write_text(json.dumps(settings))
    state = random_state(read_hub_folder(part).dims)
    state[EMBEDDING][settings["eos_token_id"]] = 0
    write_safetensors(part / SAFETENSORS, state)
    part.rename(folder)
    return folder


def _write_small(folder: Path, shape: str) -> None:
    """Vocabulary and settings, in a small one that does not take a minute to make."""
    write_checkpoint(folder, shape="mini", num_mels=128 if shape in MELS_OF_128 else 80)


def random_state(dims: Dims, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Every parameter by transformers' names, in float16, with the spread of an untrained model."""
    source = torch.Generator(device).manual_seed(0)
    return {
        f"model.{name}": torch.randn(shape, generator=source, dtype=torch.float16, device=device)
        .mul_(0.02)
        .add_(1.0 if "norm.weight" in name else 0.0)
        for name, shape in _shapes(dims).items()
    }


def _shapes(dims: Dims) -> dict[str, tuple[int, ...]]:
    width = dims.d_model
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.conv1.weight": (width, dims.num_mels, 3),
        "encoder.conv1.bias": (width,),
        "encoder.conv2.weight": (width, width, 3),
        "encoder.conv2.bias": (width,),
        "encoder.embed_positions.weight": (dims.num_frames, width),
        "decoder.embed_positions.weight": (dims.max_tokens, width),
        "decoder.embed_tokens.weight": (dims.vocab_size, width),
    }
    sides = (
        ("encoder", dims.encoder_layers, ("self_attn",)),
        ("decoder", dims.decoder_layers, ("self_attn", "encoder_attn")),
    )
    for side, layers, kinds in sides:
        norms = [f"{side}.layer_norm"]
        for prefix in (f"{side}.layers.{number}." for number in range(layers)):
            for kind in kinds:
                norms.append(f"{prefix}{kind}_layer_norm")
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    shapes[f"{prefix}{kind}.{part}.weight"] = (width, width)
                    if part != "k_proj":
                        shapes[f"{prefix}{kind}.{part}.bias"] = (width,)
            norms.append(f"{prefix}final_layer_norm")
            for part, size in (("fc1", (4 * width, width)), ("fc2", (width, 4 * width))):
                shapes[f"{prefix}{part}.weight"], shapes[f"{prefix}{part}.bias"] = size, size[:1]
        for name in norms:
            shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)
    return shapes
