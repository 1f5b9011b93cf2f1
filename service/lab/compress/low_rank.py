"""LiteASR (arXiv 2502.20583): the encoder's products through the directions their outputs use.

Of a product's outputs over real frames, `Y = X W^T + b`, the principal directions V that hold a
share θ of the variance are kept: `Y = (X (V^T W)^T) V^T + (b - m) V V^T + m`, m the outputs' mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from service.lab.breakdown import DENSE
from service.model import encoder
from service.model.operators.products import Wrapped
from service.model.weights import EncoderLayer, EncoderWeights

STEP = 16  # ranks are its multiples
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "out_proj"), ("fc1", "fc2")


@dataclass(frozen=True, slots=True)
class Theta:
    """The share of the variance that is kept, of attention's products and of the feed-forward's."""

    attention: float
    mlp: float

    def of(self, name: str) -> float:
        return self.mlp if name in MLP else self.attention


# As published.
THETAS = {
    "accurate": Theta(0.999, 0.999),
    "balanced": Theta(0.99, 0.999),
    "fast": Theta(0.99, 0.995),
}


@dataclass(slots=True)
class Spread:
    """Sums over the outputs of one product: how many, their sum (D,), of their squares (D, D)."""

    count: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, rows_ND: Tensor) -> None:
        rows = rows_ND.double()
        self.count += len(rows)
        self.sums = self.sums + rows.sum(0)
        self.squares = self.squares + rows.T @ rows

    def part(self, some: slice) -> Spread:
        """Of some of the outputs alone."""
        return Spread(self.count, self.sums[some], self.squares[some, some])

    def principal(self) -> tuple[Tensor, Tensor, Tensor]:
        """The mean (D,), the directions (D, D), a column each, and the share of the variance (D,)
        that lies in each and those before it; the largest first."""
        mean = self.sums / self.count
        covariance = self.squares / self.count - torch.outer(mean, mean)
        variances, directions = torch.linalg.eigh(covariance)
        found = variances.flip(0).clamp_min(0).cumsum(0)
        return mean, directions.flip(1), found / found[-1].clamp_min(torch.finfo(found.dtype).tiny)


@dataclass(frozen=True, slots=True)
class Factors:
    """In LiteASR's layout: weight1 (in, rank), weight2 (rank, out), bias (out,). `kept`: the share
    of the variance."""

    weight1: Tensor
    weight2: Tensor
    bias: Tensor
    kept: float

    @property
    def rank(self) -> int:
        return self.weight1.shape[1]


def rank_of(shares_D: Tensor, theta: float) -> int:
    """The smallest multiple of 16 directions that hold more than θ, as published."""
    wanted = int((shares_D <= theta).sum()) + 1
    return -(-min(wanted, len(shares_D)) // STEP) * STEP


def pays(rank: int, num_in: int, num_out: int) -> bool:
    """Whether two products are less work than one."""
    return rank * (num_in + num_out) < num_in * num_out


def factor(weight: Tensor, bias: Tensor | None, spread: Spread, theta: float) -> Factors | None:
    """weight: (out, in). None where the product stays as it is, because no rank pays."""
    mean, directions, shares = spread.principal()
    rank = rank_of(shares, theta)
    if not pays(rank, weight.shape[1], weight.shape[0]):
        return None
    return project(weight, bias, mean, directions[:, :rank], float(shares[rank - 1]))


def project(
    weight: Tensor, bias: Tensor | None, mean: Tensor, directions: Tensor, kept: float
) -> Factors:
    """`directions`: (out, rank), a column each."""
    off = (0 if bias is None else bias.double()) - mean
    return Factors(
        weight1=(weight.double().T @ directions).to(weight.dtype),
        weight2=directions.T.to(weight.dtype),
        bias=(directions @ (directions.T @ off) + mean).to(weight.dtype),
        kept=kept,
    )


def spreads(
    weights: EncoderWeights, windows: Iterable[tuple[Tensor, int]]
) -> list[dict[str, Spread]]:
    """By layer and product.

    `windows`: log-mel (1, mels, 2T), and how many of the T frames hear the recording: those of
    the padding behind it are left out.
    """
    hearing, seen = _Hearing(), [_LayerSpreads() for _ in weights.layers]
    layers = [
        _watched(layer, spread, hearing) for layer, spread in zip(weights.layers, seen, strict=True)
    ]
    watched = replace(weights, layers=tuple(layers))
    with torch.inference_mode():
        for mel_1FT, frames in windows:
            hearing.frames = frames
            encoder.encode(watched, mel_1FT, DENSE)
    return [spread.by_name() for spread in seen]


@dataclass(slots=True)
class _Hearing:
    """How many frames of the window that is being encoded count."""

    frames: int = 0


@dataclass(slots=True)
class _LayerSpreads:
    query_key_value: Spread = field(default_factory=Spread)
    out: Spread = field(default_factory=Spread)
    up: Spread = field(default_factory=Spread)
    down: Spread = field(default_factory=Spread)

    def by_name(self) -> dict[str, Spread]:
        width = len(self.out.sums)
        three = [
            self.query_key_value.part(slice(at, at + width)) for at in range(0, 3 * width, width)
        ]
        return dict(zip((*ATTENTION, *MLP), (*three, self.out, self.up, self.down), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class _Watched(Wrapped):
    """A product whose outputs are added up."""

    spread: Spread
    hearing: _Hearing

    def __call__(self, x: Tensor) -> Tensor:
        found = self.product(x)
        self.spread.add(found[0, : self.hearing.frames])
        return found


def _watched(layer: EncoderLayer, seen: _LayerSpreads, hearing: _Hearing) -> EncoderLayer:
    attention, mlp = layer.attention, layer.mlp
    return EncoderLayer(
        replace(
            attention,
            query_key_value=_Watched(attention.query_key_value, seen.query_key_value, hearing),
            out=_Watched(attention.out, seen.out, hearing),
        ),
        replace(
            mlp,
            up=_Watched(mlp.up, seen.up, hearing),
            down=_Watched(mlp.down, seen.down, hearing),
        ),
    )


def parameter(layer: int, name: str) -> str:
    """A product's name in transformers' state dict, without `.weight`."""
    inside = f"self_attn.{name}" if name in ATTENTION else name
    return f"model.encoder.layers.{layer}.{inside}"


def compressed(
    tensors: Iterable[tuple[str, Tensor]], found: Sequence[Mapping[str, Spread]], theta: Theta
) -> tuple[dict[str, Tensor], list[dict[str, Factors]]]:
    """A state dict with factors where they pay, and these by layer and product."""
    state = dict(tensors)
    layers: list[dict[str, Factors]] = []
    for number, products in enumerate(found):
        factored: dict[str, Factors] = {}
        for name, spread in products.items():
            place = parameter(number, name)
            weight, bias = state[f"{place}.weight"], state.get(f"{place}.bias")
            made = factor(weight, bias, spread, theta.of(name))
            if made is None:
                continue
            del state[f"{place}.weight"]
            state |= {
                f"{place}.weight1": made.weight1,
                f"{place}.weight2": made.weight2,
                f"{place}.bias": made.bias,
            }
            factored[name] = made
        layers.append(factored)
    return state, layers
