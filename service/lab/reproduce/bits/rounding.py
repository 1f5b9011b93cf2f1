"""A model whose weights are rounded to few bits, by kind of module; it computes in float32.

What is found is what rounding costs in words. It is not faster: that is the operators' business.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from service.model.operators.products import TINY, Dense, Product, Wrapped
from service.model.weights import (
    Conv,
    DecoderLayer,
    DecoderWeights,
    EncoderLayer,
    EncoderWeights,
    Mlp,
    SelfAttention,
    Weights,
)

STEM, ATTENTION, FEED_FORWARD = "stem", "attention", "feed-forward"
DECODER, EMBEDDING = "decoder", "embedding"
KINDS = (STEM, ATTENTION, FEED_FORWARD, DECODER, EMBEDDING)


@dataclass(frozen=True, slots=True)
class Bits:
    """`kinds` have weights of so many bits, symmetric, with a scale for each row, or for each
    `group` of a row's values (0: the whole row). `activations`: bits of what their products
    multiply, a scale for each row; 0: as it is. The stem's convolutions keep theirs."""

    kinds: tuple[str, ...]
    weights: int
    group: int = 0
    activations: int = 0

    @property
    def name(self) -> str:
        group = f" in {self.group}s" if self.group else ""
        activations = f", activations {self.activations}" if self.activations else ""
        return f"{' + '.join(self.kinds)}: {self.weights} bits{group}{activations}"


def rounded(weights: Weights, bits: Bits) -> Weights:
    """The same model. Its products have to be plain ones."""
    return Weights(weights.dims, _encoder(weights.encoder, bits), _decoder(weights.decoder, bits))


def round_rows(x: Tensor, bits: int, group: int = 0) -> Tensor:
    """(..., width) to whole steps of the largest magnitude of each row, or of each `group` of it.

    Raises ValueError where a row is no whole number of groups.
    """
    if group and x.shape[-1] % group:
        raise ValueError(f"rows of {x.shape[-1]} are no whole groups of {group}")
    rows = x.reshape(-1, group or x.shape[-1])
    steps = rows.abs().amax(1, keepdim=True).clamp_min(TINY) / (2 ** (bits - 1) - 1)
    whole: Tensor = (rows / steps).round_().mul_(steps)
    return whole.view(x.shape)


@dataclass(frozen=True, slots=True, eq=False)
class _RoundedInput(Wrapped):
    """A product whose input is rounded row by row."""

    bits: int

    def __call__(self, x: Tensor) -> Tensor:
        return self.product(round_rows(x, self.bits))


def _product(product: Product, bits: Bits) -> Product:
    if not isinstance(product, Dense):
        raise TypeError("only a plain product's weights can be rounded")
    made = Dense(round_rows(product.weight, bits.weights, bits.group), product.bias)
    return _RoundedInput(made, bits.activations) if bits.activations else made


def _encoder(weights: EncoderWeights, bits: Bits) -> EncoderWeights:
    if STEM in bits.kinds:
        conv1, conv2 = (_conv(conv, bits) for conv in (weights.conv1, weights.conv2))
        weights = replace(weights, conv1=conv1, conv2=conv2)
    return replace(weights, layers=tuple(_encoder_layer(layer, bits) for layer in weights.layers))


def _conv(conv: Conv, bits: Bits) -> Conv:
    """A row is all that an output channel multiplies; groups are of products alone."""
    return Conv(round_rows(conv.weight.flatten(1), bits.weights).view_as(conv.weight), conv.bias)


def _encoder_layer(layer: EncoderLayer, bits: Bits) -> EncoderLayer:
    attention = _self_attention(layer.attention, bits) if ATTENTION in bits.kinds else None
    mlp = _mlp(layer.mlp, bits) if FEED_FORWARD in bits.kinds else None
    return EncoderLayer(attention or layer.attention, mlp or layer.mlp)


def _self_attention(attention: SelfAttention, bits: Bits) -> SelfAttention:
    return replace(
        attention,
        query_key_value=_product(attention.query_key_value, bits),
        out=_product(attention.out, bits),
    )


def _mlp(mlp: Mlp, bits: Bits) -> Mlp:
    return replace(mlp, up=_product(mlp.up, bits), down=_product(mlp.down, bits))


def _decoder(weights: DecoderWeights, bits: Bits) -> DecoderWeights:
    if EMBEDDING in bits.kinds:
        embedding_VD = round_rows(weights.embedding_VD, bits.weights, bits.group)
        weights = replace(weights, embedding_VD=embedding_VD, logits=_product(weights.logits, bits))
    if DECODER in bits.kinds:
        layers = tuple(_decoder_layer(layer, bits) for layer in weights.layers)
        weights = replace(weights, layers=layers)
    return weights


def _decoder_layer(layer: DecoderLayer, bits: Bits) -> DecoderLayer:
    cross = replace(
        layer.cross,
        query=_product(layer.cross.query, bits),
        key=_product(layer.cross.key, bits),
        value=_product(layer.cross.value, bits),
        out=_product(layer.cross.out, bits),
    )
    return DecoderLayer(_self_attention(layer.attention, bits), cross, _mlp(layer.mlp, bits))


def num_weights(weights: Weights, kind: str) -> int:
    """Of a kind: what its rounding saves bits of."""
    encoder, decoder = weights.encoder, weights.decoder
    products: list[Product] = []
    match kind:
        case "stem":
            return encoder.conv1.weight.numel() + encoder.conv2.weight.numel()
        case "attention":
            for layer in encoder.layers:
                products += (layer.attention.query_key_value, layer.attention.out)
        case "feed-forward":
            for layer in encoder.layers:
                products += (layer.mlp.up, layer.mlp.down)
        case "decoder":
            for each in decoder.layers:
                cross = each.cross
                products += (each.attention.query_key_value, each.attention.out)
                products += (cross.query, cross.key, cross.value, cross.out)
                products += (each.mlp.up, each.mlp.down)
        case _:
            products.append(decoder.logits)
    return int(sum(torch.Size(product.shape).numel() for product in products))
