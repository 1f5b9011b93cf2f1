"""The parameters of a Whisper model, laid out as its layers are. Shared by every profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Dims:
    """The shape of a model. `max_tokens` is the decoder's context (448)."""

    num_mels: int
    num_frames: int
    d_model: int
    encoder_heads: int
    decoder_heads: int
    encoder_layers: int
    decoder_layers: int
    vocab_size: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Linear:
    """weight: (out, in), or (out, in, 3) for a convolution; bias: (out,) or None."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Norm:
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True)
class Attention:
    norm: Norm
    query: Linear
    key: Linear
    value: Linear
    out: Linear


@dataclass(frozen=True, slots=True)
class Mlp:
    norm: Norm
    up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    attention: Attention
    mlp: Mlp


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    attention: Attention
    cross: Attention
    mlp: Mlp


@dataclass(frozen=True, slots=True)
class EncoderWeights:
    heads: int
    conv1: Linear
    conv2: Linear
    positions_TD: Tensor
    layers: tuple[EncoderLayer, ...]
    norm: Norm


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    heads: int
    embedding_VD: Tensor
    positions_TD: Tensor
    layers: tuple[DecoderLayer, ...]
    norm: Norm


@dataclass(frozen=True, slots=True)
class Weights:
    dims: Dims
    encoder: EncoderWeights
    decoder: DecoderWeights


def from_state_dict(state: State, dims: Dims) -> Weights:
    """Views of a `WhisperForConditionalGeneration` state dict (keys begin `model.`).

    Raises KeyError for a parameter that is missing.
    """
    encoder, decoder = "model.encoder.", "model.decoder."
    return Weights(
        dims,
        EncoderWeights(
            heads=dims.encoder_heads,
            conv1=_linear(state, encoder + "conv1"),
            conv2=_linear(state, encoder + "conv2"),
            positions_TD=state[encoder + "embed_positions.weight"],
            layers=tuple(
                _encoder_layer(state, f"{encoder}layers.{i}.") for i in range(dims.encoder_layers)
            ),
            norm=_norm(state, encoder + "layer_norm"),
        ),
        DecoderWeights(
            heads=dims.decoder_heads,
            embedding_VD=state[decoder + "embed_tokens.weight"],
            positions_TD=state[decoder + "embed_positions.weight"],
            layers=tuple(
                _decoder_layer(state, f"{decoder}layers.{i}.") for i in range(dims.decoder_layers)
            ),
            norm=_norm(state, decoder + "layer_norm"),
        ),
    )


def _encoder_layer(state: State, prefix: str) -> EncoderLayer:
    return EncoderLayer(_attention(state, prefix, "self_attn"), _mlp(state, prefix))


def _decoder_layer(state: State, prefix: str) -> DecoderLayer:
    return DecoderLayer(
        _attention(state, prefix, "self_attn"),
        _attention(state, prefix, "encoder_attn"),
        _mlp(state, prefix),
    )


def _attention(state: State, prefix: str, kind: str) -> Attention:
    return Attention(
        norm=_norm(state, f"{prefix}{kind}_layer_norm"),
        query=_linear(state, f"{prefix}{kind}.q_proj"),
        key=_linear(state, f"{prefix}{kind}.k_proj"),
        value=_linear(state, f"{prefix}{kind}.v_proj"),
        out=_linear(state, f"{prefix}{kind}.out_proj"),
    )


def _mlp(state: State, prefix: str) -> Mlp:
    return Mlp(
        _norm(state, prefix + "final_layer_norm"),
        _linear(state, prefix + "fc1"),
        _linear(state, prefix + "fc2"),
    )


def _linear(state: State, name: str) -> Linear:
    return Linear(state[name + ".weight"], state.get(name + ".bias"))


def _norm(state: State, name: str) -> Norm:
    return Norm(state[name + ".weight"], state[name + ".bias"])


def num_parameters(state: State) -> int:
    """Distinct parameters in a state dict: tied tensors count once."""
    return sum(t.numel() for t in {t.data_ptr(): t for t in state.values()}.values())
