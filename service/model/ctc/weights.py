"""The parameters of a CTC model, laid out as its layers are. Shared by every profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from service.errors import CheckpointError
from service.model.ctc.dims import Dims
from service.model.operators.attention import Attend
from service.model.operators.choose import Operators
from service.model.operators.products import Dense, Product
from service.model.weights import Conv, EncoderLayer, Mlp, Norm, SelfAttention, State

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "swish": F.silu}
)
BATCH_NORM_EPS = 1e-5
# The two ways in which a weight is stored whose length and direction were learnt apart.
_LENGTH_AND_DIRECTION = (
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ("weight_g", "weight_v"),
)


@dataclass(frozen=True, slots=True)
class StemConv:
    """A convolution of the stem; `norm` over channels, or over time for each channel (`grouped`),
    None where nothing is normed."""

    conv: Conv
    stride: int
    norm: Norm | None
    grouped: bool


@dataclass(frozen=True, slots=True)
class Stem:
    """Samples to frames, and those to the width of the layers."""

    convs: tuple[StemConv, ...]
    norm: Norm | None
    projection: Product
    activation: Activation


@dataclass(frozen=True, slots=True)
class ConformerAttention:
    """`query_key`: D -> 2D, in this order. `position`, `content_bias_HK` and `position_bias_HK`:
    of relative positions, None where there are none."""

    norm: Norm
    query_key: Product
    value: Product
    out: Product
    position: Product | None = None
    content_bias_HK: Tensor | None = None
    position_bias_HK: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Convolution:
    """`widen`: D -> 2D, half of it gates; `depthwise`: (D, 1, reach), its norm over batches, which
    is fixed, multiplied in."""

    norm: Norm
    widen: Product
    depthwise: Conv
    out: Product


@dataclass(frozen=True, slots=True)
class ConformerLayer:
    before: Mlp
    attention: ConformerAttention
    convolution: Convolution
    after: Mlp
    norm: Norm


@dataclass(frozen=True, slots=True)
class CtcWeights:
    """`position_conv`: what is added to frames before the layers, None where nothing is. `norm`
    stands before the layers, unless they norm first. `head`: states to symbols. `attend`: how
    frames attend to one another on this device."""

    dims: Dims
    stem: Stem
    position_conv: Conv | None
    layers: tuple[EncoderLayer | ConformerLayer, ...]
    norm: Norm
    head: Dense
    activation: Activation
    attend: Attend


def from_state_dict(state: State, dims: Dims, operators: Operators) -> CtcWeights:
    """The weights of a state dict of transformers' `...ForCTC`, without the model's own prefix.

    Takes them out of `state` one by one, so that what is packed is not held twice. Raises
    CheckpointError for a parameter that is missing, or of another shape than `dims` say.
    """
    take = _Taker(state, operators)
    width = dims.d_model
    if "lm_head.weight" not in state:
        raise CheckpointError(
            "there is no lm_head: this is an encoder that was not trained to write text (CTC)"
        )
    layer: Callable[[_Taker, str, Dims], EncoderLayer | ConformerLayer]
    layer = _conformer_layer if dims.conformer else _transformer_layer
    layers = tuple(layer(take, f"encoder.layers.{i}.", dims) for i in range(dims.layers))
    if any(name.startswith(f"encoder.layers.{dims.layers}.") for name in state):
        raise CheckpointError(f"config.json says {dims.layers} layers, the weights have more")
    return CtcWeights(
        dims=dims,
        stem=_stem(take, dims),
        # A conformer's is stored, and never used.
        position_conv=None if dims.conformer else _position_conv(take, dims),
        layers=layers,
        norm=take.norm("encoder.layer_norm", width),
        # As it is: a few symbols of many, and what they are rounded to would be text.
        head=Dense(
            take.tensor("lm_head.weight", dims.vocab_size, width),
            take.tensor("lm_head.bias", dims.vocab_size),
        ),
        activation=ACTIVATIONS[dims.activation],
        attend=operators.attend,
    )


@dataclass(frozen=True, slots=True)
class _Taker:
    """Takes parameters out of a state dict, looks at their shapes, and packs the products."""

    state: State
    operators: Operators

    def tensor(self, name: str, *shape: int) -> Tensor:
        if name not in self.state:
            raise CheckpointError(f"the parameter {name} is missing")
        tensor = self.state.pop(name)
        if tuple(tensor.shape) != shape:
            raise CheckpointError(f"{name} is {tuple(tensor.shape)}, but config.json says {shape}")
        return tensor.to(self.operators.dtype)

    def norm(self, name: str, width: int) -> Norm:
        return Norm(self.tensor(f"{name}.weight", width), self.tensor(f"{name}.bias", width))

    def conv(self, name: str, *shape: int) -> Conv:
        has_bias = f"{name}.bias" in self.state
        bias = self.tensor(f"{name}.bias", shape[0]) if has_bias else None
        return Conv(self.tensor(f"{name}.weight", *shape), bias)

    def product(self, names: tuple[str, ...], rows: int, columns: int) -> Product:
        """Several with the same input are one."""
        weights = [self.tensor(f"{name}.weight", rows, columns) for name in names]
        biases = [self.tensor(f"{name}.bias", rows) for name in names]
        return self.operators.many(torch.cat(weights), torch.cat(biases))

    def pointwise(self, name: str, rows: int, columns: int) -> Product:
        """A convolution of one frame is a product."""
        return self.operators.many(self.tensor(f"{name}.weight", rows, columns, 1)[..., 0], None)

    def mlp(self, norm: str, name: str, dims: Dims) -> Mlp:
        width, inner = dims.d_model, dims.inner
        return Mlp(
            self.norm(norm, width),
            self.product((f"{name}.intermediate_dense",), inner, width),
            self.product((f"{name}.output_dense",), width, inner),
        )


def _stem(take: _Taker, dims: Dims) -> Stem:
    convs = []
    for i, (channels, kernel) in enumerate(zip(dims.channels, dims.kernels, strict=True)):
        name = f"feature_extractor.conv_layers.{i}"
        grouped = dims.group_norm and i == 0
        normed = grouped or not dims.group_norm
        convs.append(
            StemConv(
                take.conv(f"{name}.conv", channels, dims.channels[i - 1] if i else 1, kernel),
                dims.strides[i],
                take.norm(f"{name}.layer_norm", channels) if normed else None,
                grouped,
            )
        )
    last, name = dims.channels[-1], "feature_projection.layer_norm"
    return Stem(
        tuple(convs),
        take.norm(name, last) if f"{name}.weight" in take.state else None,
        take.product(("feature_projection.projection",), dims.d_model, last),
        ACTIVATIONS[dims.stem_activation],
    )


def _position_conv(take: _Taker, dims: Dims) -> Conv:
    """Its weight as the product of length and direction that it was learnt as."""
    name = "encoder.pos_conv_embed.conv"
    width, kernel = dims.d_model, dims.position_kernel
    for length, direction in _LENGTH_AND_DIRECTION:
        if f"{name}.{length}" in take.state:
            lengths = take.tensor(f"{name}.{length}", 1, 1, kernel).float()
            directions = take.tensor(
                f"{name}.{direction}", width, width // dims.position_groups, kernel
            ).float()
            weight = lengths * directions / directions.norm(dim=(0, 1), keepdim=True)
            bias = take.tensor(f"{name}.bias", width)
            return Conv(weight.to(take.operators.dtype), bias)
    raise CheckpointError(f"the parameter {name}.weight_g is missing")


def _transformer_layer(take: _Taker, prefix: str, dims: Dims) -> EncoderLayer:
    width, name = dims.d_model, f"{prefix}attention"
    inputs = (f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj")
    return EncoderLayer(
        SelfAttention(
            take.norm(f"{prefix}layer_norm", width),
            take.product(inputs, width, width),
            take.product((f"{name}.out_proj",), width, width),
        ),
        take.mlp(f"{prefix}final_layer_norm", f"{prefix}feed_forward", dims),
    )


def _conformer_layer(take: _Taker, prefix: str, dims: Dims) -> ConformerLayer:
    return ConformerLayer(
        take.mlp(f"{prefix}ffn1_layer_norm", f"{prefix}ffn1", dims),
        _conformer_attention(take, prefix, dims),
        _convolution(take, f"{prefix}conv_module.", dims),
        take.mlp(f"{prefix}ffn2_layer_norm", f"{prefix}ffn2", dims),
        take.norm(f"{prefix}final_layer_norm", dims.d_model),
    )


def _conformer_attention(take: _Taker, prefix: str, dims: Dims) -> ConformerAttention:
    width, name = dims.d_model, f"{prefix}self_attn"
    norm = take.norm(f"{prefix}self_attn_layer_norm", width)
    query_key = take.product((f"{name}.linear_q", f"{name}.linear_k"), width, width)
    value = take.product((f"{name}.linear_v",), width, width)
    out = take.product((f"{name}.linear_out",), width, width)
    if dims.positions != "relative":
        return ConformerAttention(norm, query_key, value, out)
    heads = (dims.heads, width // dims.heads)
    return ConformerAttention(
        *(norm, query_key, value, out),
        position=take.operators.many(take.tensor(f"{name}.linear_pos.weight", width, width), None),
        content_bias_HK=take.tensor(f"{name}.pos_bias_u", *heads),
        position_bias_HK=take.tensor(f"{name}.pos_bias_v", *heads),
    )


def _convolution(take: _Taker, prefix: str, dims: Dims) -> Convolution:
    width, norm = dims.d_model, f"{prefix}batch_norm"
    mean = take.tensor(f"{norm}.running_mean", width).float()
    deviation = (take.tensor(f"{norm}.running_var", width).float() + BATCH_NORM_EPS).sqrt()
    scale = take.tensor(f"{norm}.weight", width).float() / deviation
    shift = take.tensor(f"{norm}.bias", width).float() - mean * scale
    weight = take.tensor(f"{prefix}depthwise_conv.weight", width, 1, dims.reach).float()
    dtype = take.operators.dtype
    return Convolution(
        take.norm(f"{prefix}layer_norm", width),
        take.pointwise(f"{prefix}pointwise_conv1", 2 * width, width),
        Conv((weight * scale[:, None, None]).to(dtype), shift.to(dtype)),
        take.pointwise(f"{prefix}pointwise_conv2", width, width),
    )
