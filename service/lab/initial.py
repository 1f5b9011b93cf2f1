"""The parameters that training from nothing starts with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from service.lab.targets import CHARACTERS
from service.lab.vocabulary import TIMESTAMPS
from service.model.weights import Dims

Params = dict[str, Tensor]

TIME_SCALE = 0.07


def new_params(dims: Dims, seed: int, device: str = "cpu") -> Params:
    """Random parameters under `WhisperForConditionalGeneration`'s names, and a CTC head."""
    draw = _Draw({}, dims.d_model, torch.Generator().manual_seed(seed))
    # As loud as the positions that are added to them.
    draw.linear("model.encoder.conv1", dims.d_model, dims.num_mels, 3, scale=1.6)
    draw.linear("model.encoder.conv2", dims.d_model, dims.d_model, 3, scale=1.6)
    draw.params["model.encoder.embed_positions.weight"] = sinusoids(dims.num_frames, dims.d_model)
    draw.layers("model.encoder.layers", dims.encoder_layers, "self_attn")
    draw.norm("model.encoder.layer_norm")
    for i in range(dims.encoder_layers):
        _attend_nearby(draw.params, f"model.encoder.layers.{i}.self_attn")
    draw.table("model.decoder.embed_tokens", dims.vocab_size, std=0.05)
    # A timestamp starts as the position of its frame, which is what it has to find.
    draw.params["model.decoder.embed_tokens.weight"][-len(TIMESTAMPS) :] = TIME_SCALE * sinusoids(
        len(TIMESTAMPS), dims.d_model
    )
    draw.table("model.decoder.embed_positions", dims.max_tokens, std=0.02)
    draw.layers("model.decoder.layers", dims.decoder_layers, "self_attn", "encoder_attn")
    draw.norm("model.decoder.layer_norm")
    draw.linear("ctc", len(CHARACTERS) + 1, dims.d_model)
    fixed = "model.encoder.embed_positions.weight"
    return {n: p.to(device).requires_grad_(n != fixed) for n, p in draw.params.items()}


@dataclass(frozen=True, slots=True)
class _Draw:
    """Draws the parameters of named modules into `params`."""

    params: Params
    d_model: int
    generator: torch.Generator

    def linear(
        self, name: str, out: int, *inputs: int, bias: bool = True, scale: float = 1.0
    ) -> None:
        std = scale / math.sqrt(math.prod(inputs))
        self.params[name + ".weight"] = torch.randn(out, *inputs, generator=self.generator) * std
        if bias:
            self.params[name + ".bias"] = torch.zeros(out)

    def norm(self, name: str) -> None:
        self.params[name + ".weight"] = torch.ones(self.d_model)
        self.params[name + ".bias"] = torch.zeros(self.d_model)

    def table(self, name: str, rows: int, std: float) -> None:
        values = torch.randn(rows, self.d_model, generator=self.generator) * std
        self.params[name + ".weight"] = values

    def layers(self, name: str, count: int, *kinds: str) -> None:
        scale = 1 / math.sqrt(2 * count)
        for i in range(count):
            for kind in kinds:
                self.attention(f"{name}.{i}.{kind}", scale)
            self.norm(f"{name}.{i}.final_layer_norm")
            self.linear(f"{name}.{i}.fc1", 4 * self.d_model, self.d_model)
            self.linear(f"{name}.{i}.fc2", self.d_model, 4 * self.d_model, scale=scale)

    def attention(self, name: str, scale: float) -> None:
        self.norm(name + "_layer_norm")
        for kind in "qkv":
            self.linear(f"{name}.{kind}_proj", self.d_model, self.d_model, bias=kind != "k")
        self.linear(name + ".out_proj", self.d_model, self.d_model, scale=scale)


def sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's encoder positions (length, channels)."""
    step = math.log(10_000) / (channels // 2 - 1)
    scales = torch.exp(-step * torch.arange(channels // 2))
    angles = torch.arange(length)[:, None] * scales[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _attend_nearby(params: Params, name: str) -> None:
    """Makes queries and keys alike, so that attention starts local.

    The inner product of two sinusoidal positions falls with their distance. Left to chance, a
    small encoder spends its first thousand steps learning to look at neighbouring frames.
    """
    query = params[f"{name}.q_proj.weight"] * 1.5
    params[f"{name}.q_proj.weight"], params[f"{name}.k_proj.weight"] = query, query.clone()
