"""The parameters of a Whisper model, laid out as its layers are. Shared by every profile."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from torch import Tensor

from service.model.operators.attention import Attend
from service.model.operators.bags import Bags
from service.model.operators.choose import Operators
from service.model.operators.factors import Factored, SideBySide
from service.model.operators.products import Dense, Pack, Product

State = dict[str, Tensor]
ALIKE = 0.01  # bfloat16 rounds by half as much


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
class Conv:
    """weight: (out, in, 3); bias: (out,) or None."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class Norm:
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True)
class SelfAttention:
    """`query_key_value`: D -> 3D, in this order."""

    norm: Norm
    query_key_value: Product
    out: Product


@dataclass(frozen=True, slots=True)
class CrossAttention:
    norm: Norm
    query: Product
    key: Product
    value: Product
    out: Product


@dataclass(frozen=True, slots=True)
class Mlp:
    norm: Norm
    up: Product
    down: Product


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    attention: SelfAttention
    mlp: Mlp


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    attention: SelfAttention
    cross: CrossAttention
    mlp: Mlp


@dataclass(frozen=True, slots=True)
class EncoderWeights:
    """`attend`: how frames attend to one another on this device."""

    heads: int
    conv1: Conv
    conv2: Conv
    positions_TD: Tensor
    layers: tuple[EncoderLayer, ...]
    norm: Norm
    attend: Attend


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """`embedding_VD` is what tokens are read by, in a type that holds it exactly; `logits` is the
    product with it. `cross`: how cross-attention's keys and values are held."""

    heads: int
    embedding_VD: Tensor
    positions_TD: Tensor
    layers: tuple[DecoderLayer, ...]
    norm: Norm
    logits: Product
    cross: Bags

    @property
    def dtype(self) -> torch.dtype:
        """Of what is computed."""
        return self.positions_TD.dtype


@dataclass(frozen=True, slots=True)
class Weights:
    dims: Dims
    encoder: EncoderWeights
    decoder: DecoderWeights


def from_state_dict(state: State, dims: Dims, operators: Operators) -> Weights:
    """The weights of a `WhisperForConditionalGeneration` state dict (keys begin `model.`).

    Takes them out of `state` one by one, so that what is packed is not held twice. Raises
    KeyError for a parameter that is missing.
    """
    encoder = _Taker(state, operators.dtype, operators.many)
    decoder = _Taker(state, operators.dtype, operators.few)
    prefix = "model.encoder."
    encoder_weights = EncoderWeights(
        heads=dims.encoder_heads,
        conv1=encoder.conv(prefix + "conv1"),
        conv2=encoder.conv(prefix + "conv2"),
        positions_TD=encoder.tensor(prefix + "embed_positions.weight"),
        layers=tuple(
            _encoder_layer(encoder, f"{prefix}layers.{i}.") for i in range(dims.encoder_layers)
        ),
        norm=encoder.norm(prefix + "layer_norm"),
        attend=operators.attend,
    )
    prefix = "model.decoder."
    layers = tuple(
        # What is multiplied with a window's frames has many rows, in the decoder too.
        _decoder_layer(decoder, encoder, f"{prefix}layers.{i}.")
        for i in range(dims.decoder_layers)
    )
    embedding_VD = state.pop(prefix + "embed_tokens.weight")
    logits = operators.few(embedding_VD.to(operators.dtype), None)
    decoder_weights = DecoderWeights(
        heads=dims.decoder_heads,
        embedding_VD=embedding_VD if isinstance(logits, Dense) else _narrowest(embedding_VD),
        positions_TD=decoder.tensor(prefix + "embed_positions.weight"),
        layers=layers,
        norm=decoder.norm(prefix + "layer_norm"),
        logits=logits,
        cross=operators.cross,
    )
    return Weights(dims, encoder_weights, decoder_weights)


def encoder_like(
    base: EncoderWeights, state: State, dtype: torch.dtype, pack: Pack, *, shares: bool
) -> EncoderWeights:
    """`base` with its layers' products made anew from a state dict's; all else stays `base`'s.

    `shares`: only factors are made, and what is none stays `base`'s too, held once. Raises
    KeyError for a parameter that is missing.
    """
    take = _Taker(state, dtype, pack)

    def product(held: Product, layer: str, *names: str) -> Product:
        whole = [f"{layer}{name}" for name in names]
        if shares and not any(f"{name}.weight1" in state for name in whole):
            return held
        return take.product(*whole)

    layers = []
    for number, layer in enumerate(base.layers):
        at = f"model.encoder.layers.{number}."
        parts = [f"self_attn.{name}_proj" for name in "qkv"]
        attention = replace(
            layer.attention,
            query_key_value=product(layer.attention.query_key_value, at, *parts),
            out=product(layer.attention.out, at, "self_attn.out_proj"),
        )
        mlp = replace(
            layer.mlp,
            up=product(layer.mlp.up, at, "fc1"),
            down=product(layer.mlp.down, at, "fc2"),
        )
        layers.append(EncoderLayer(attention, mlp))
    return replace(base, layers=tuple(layers))


def _narrowest(tensor: Tensor) -> Tensor:
    """In float16 what float32 holds of Whisper's published weights, which are that: half of it."""
    if tensor.dtype != torch.float32:
        return tensor
    narrow = tensor.half()
    return narrow if torch.equal(narrow.float(), tensor) else tensor


@dataclass(frozen=True, slots=True)
class _Taker:
    """Takes parameters out of a state dict, and packs the products among them."""

    state: State
    dtype: torch.dtype
    pack: Pack

    def tensor(self, name: str) -> Tensor:
        return self.state.pop(name).to(self.dtype)

    def conv(self, name: str) -> Conv:
        return Conv(self.tensor(name + ".weight"), self._bias(name))

    def norm(self, name: str) -> Norm:
        return Norm(self.tensor(name + ".weight"), self.tensor(name + ".bias"))

    def product(self, *names: str) -> Product:
        """Several with the same input are one. Whisper's keys have no bias: theirs is zeros."""
        if any(f"{name}.weight1" in self.state for name in names):
            parts = tuple(self._factored(name) for name in names)
            return parts[0] if len(parts) == 1 else SideBySide(parts)
        weights = [self.tensor(name + ".weight") for name in names]
        biases = [self._bias(name) for name in names]
        if len(names) == 1:
            return self.pack(weights[0], biases[0])
        if all(bias is None for bias in biases):
            return self.pack(torch.cat(weights), None)
        filled = [
            weight.new_zeros(len(weight)) if bias is None else bias
            for weight, bias in zip(weights, biases, strict=True)
        ]
        return self.pack(torch.cat(weights), torch.cat(filled))

    def _factored(self, name: str) -> Product:
        """As LiteASR has it: `weight1` (in, rank) and `weight2` (rank, out)."""
        if f"{name}.weight1" not in self.state:
            return self.product(name)
        inner, outer = (self.tensor(f"{name}.{each}") for each in ("weight1", "weight2"))
        return Factored(
            self.pack(inner.T.contiguous(), None), self.pack(outer.T.contiguous(), self._bias(name))
        )

    def _bias(self, name: str) -> Tensor | None:
        bias = self.state.pop(name + ".bias", None)
        return None if bias is None else bias.to(self.dtype)


def _encoder_layer(take: _Taker, prefix: str) -> EncoderLayer:
    return EncoderLayer(_self_attention(take, prefix), _mlp(take, prefix))


def _decoder_layer(take: _Taker, take_many: _Taker, prefix: str) -> DecoderLayer:
    cross = CrossAttention(
        norm=take.norm(f"{prefix}encoder_attn_layer_norm"),
        query=take.product(f"{prefix}encoder_attn.q_proj"),
        key=take_many.product(f"{prefix}encoder_attn.k_proj"),
        value=take_many.product(f"{prefix}encoder_attn.v_proj"),
        out=take.product(f"{prefix}encoder_attn.out_proj"),
    )
    return DecoderLayer(_self_attention(take, prefix), cross, _mlp(take, prefix))


def _self_attention(take: _Taker, prefix: str) -> SelfAttention:
    name = f"{prefix}self_attn"
    return SelfAttention(
        norm=take.norm(f"{name}_layer_norm"),
        query_key_value=take.product(f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj"),
        out=take.product(f"{name}.out_proj"),
    )


def _mlp(take: _Taker, prefix: str) -> Mlp:
    return Mlp(
        take.norm(prefix + "final_layer_norm"),
        take.product(prefix + "fc1"),
        take.product(prefix + "fc2"),
    )


def products_of(layer: EncoderLayer) -> tuple[Product, ...]:
    attention, mlp = layer.attention, layer.mlp
    return attention.query_key_value, attention.out, mlp.up, mlp.down


def held_bytes(weights: object) -> int:
    """Of everything that is held: each tensor and product once, however often it is used."""
    seen: dict[int, int] = {}

    def look_at(part: object) -> None:
        if id(part) in seen:
            return
        # The weights of a plain product may be something else's too, as an embedding's are.
        whole = hasattr(part, "nbytes") and not isinstance(part, Dense)
        seen[id(part)] = getattr(part, "nbytes", 0) if whole else 0
        if isinstance(part, tuple | list):
            for one in part:
                look_at(one)
        elif is_dataclass(part) and not whole:
            for field in fields(part):
                look_at(getattr(part, field.name))

    look_at(weights)
    return sum(seen.values())


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether they are one parameter, in types of their own maybe."""
    one, other = one.float().cpu(), other.float().cpu()
    return one.shape == other.shape and torch.allclose(
        one, other, rtol=ALIKE, atol=ALIKE * float(other.abs().max())
    )


def num_parameters(state: State) -> int:
    """Distinct parameters in a state dict: tied tensors count once."""
    return sum(t.numel() for t in {t.data_ptr(): t for t in state.values()}.values())
