"""A checkpoint in the true shape of any of Whisper's models, random weights, made on its device.

Speed and memory depend on shapes, not on values, and large-v3 takes a minute to make and to write
where this takes a second.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from service.model.checkpoint import Checkpoint, load_checkpoint, operators_for
from service.model.weights import Dims, from_state_dict, num_parameters
from tests.checkpoints import SHAPES, write_checkpoint

MELS_OF_128 = ("large", "turbo", "distil")


def checkpoint_of(shape: str, device: str, dtype: str) -> Checkpoint:
    """`shape` is one of `tests.checkpoints.SHAPES`. Its end-of-text is suppressed, so that every
    window decodes to its limit."""
    mels = 128 if shape in MELS_OF_128 else 80
    with tempfile.TemporaryDirectory() as folder:
        path = write_checkpoint(Path(folder) / "mini", shape="mini", num_mels=mels)
        mini = load_checkpoint(str(path), device=device, dtype=dtype)
    d_model, heads, encoder_layers, decoder_layers = SHAPES[shape]
    dims = replace(
        mini.weights.dims,
        d_model=d_model,
        encoder_heads=heads,
        decoder_heads=heads,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
    )
    state = random_state(dims, mini.device, mini.dtype)
    vocabulary, parameters = mini.vocabulary, num_parameters(state)
    return replace(
        mini,
        name=shape,
        weights=from_state_dict(state, dims, operators_for(dtype, mini.device)),
        vocabulary=replace(
            vocabulary, suppress_tokens=(*vocabulary.suppress_tokens, vocabulary.eot)
        ),
        num_parameters=parameters,
    )


def random_state(dims: Dims, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every parameter by transformers' names, with the spread of an untrained model."""
    source = torch.Generator(device).manual_seed(0)
    return {
        f"model.{name}": torch.randn(shape, generator=source, device=device, dtype=dtype)
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
