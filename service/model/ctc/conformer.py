"""A conformer's layer (arXiv 2005.08100), as wav2vec 2.0 has it, over all frames or those left.

Its attention and its convolution both go by distances. Both are given those of the recording:
attention by where the states stand, and the convolution by running over every frame again, those
that went being as the state nearest to them. It costs little: a few taps a frame, beside the
products, which are of the states alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model.ctc import places as where
from service.model.ctc.places import Distances, Places
from service.model.ctc.weights import ConformerAttention, Convolution, CtcWeights
from service.model.layers import norm, split_heads
from service.model.weights import Mlp

WAVELENGTHS = 10_000.0  # of the slowest sinusoid, over the fastest's


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """What all layers ask of the states' places, worked out once.

    `sinusoids_RD`: of each distance; `cos_BT1K`, `sin_BT1K`: by which states are turned;
    `owners_BT`: what stands for each frame, None where every frame is there; `first_k`: the first
    window's positions, on the CPU.
    """

    places: Places
    distances: Distances | None = None
    sinusoids_RD: Tensor | None = None
    cos_BT1K: Tensor | None = None
    sin_BT1K: Tensor | None = None
    owners_BT: Tensor | None = None
    first_k: Tensor | None = None


def look_around(weights: CtcWeights, places: Places, like: Tensor) -> Surroundings:
    """Of states of `like`'s type. Nothing, for a model that asks for none of it."""
    dims = weights.dims
    if not dims.conformer:
        return Surroundings(places)
    around = Surroundings(places)
    if not places.is_whole:
        first_k = places.positions_BT[0].cpu()
        around = replace(around, owners_BT=where.owners(places), first_k=first_k)
    if dims.positions == "relative":
        apart = where.distances(places)
        table = sinusoids(apart.frames_R, dims.d_model).to(like.dtype)
        return replace(around, distances=apart, sinusoids_RD=table)
    if dims.positions == "rotary":
        head, centres_BT = dims.d_model // dims.heads, where.twice_centres(places)
        cos, sin = (each.to(like.dtype) for each in rotation(centres_BT, head, dims.rotary_base))
        return replace(around, cos_BT1K=cos, sin_BT1K=sin)
    return around


def sinusoids(frames_R: Tensor, width: int) -> Tensor:
    """(R,) distances -> (R, width): sines and cosines in turns (arXiv 1901.02860)."""
    steps = torch.arange(0, width, 2, device=frames_R.device).float()
    turns_RW = frames_R[:, None] * torch.exp(steps * -(math.log(WAVELENGTHS) / width))
    return torch.stack([turns_RW.sin(), turns_RW.cos()], dim=-1).flatten(1)[:, :width]


def rotation(twice_centres_BT: Tensor, head: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, T, 1, head) of how far a state at each place is turned."""
    steps = torch.arange(0, head, 2, device=twice_centres_BT.device).float()
    turns = (twice_centres_BT.float() / 2)[..., None] * (1 / base ** (steps / head))
    turns_BT1K = torch.cat([turns, turns], dim=-1)[:, :, None]
    return turns_BT1K.cos(), turns_BT1K.sin()


def half_mlp(states_BTD: Tensor, mlp: Mlp, weights: CtcWeights) -> Tensor:
    inner = weights.activation(mlp.up(norm(states_BTD, mlp.norm)))
    return states_BTD + 0.5 * mlp.down(inner)


def project(
    states_BTD: Tensor, attention: ConformerAttention, around: Surroundings, heads: int
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Query, key and value of a layer's attention, each (B, H, T, K), and what distances add to
    the logits (B, H, T, T), None for nothing."""
    normed_BTD = norm(states_BTD, attention.norm)
    turned_BTD = _turned(normed_BTD, around, heads)
    query, key = attention.query_key(turned_BTD).chunk(2, dim=-1)
    query, key = split_heads(query, heads), split_heads(key, heads)
    value = split_heads(attention.value(normed_BTD), heads)
    if attention.position is None:
        return query, key, value, None
    assert attention.content_bias_HK is not None
    bias = relative_bias(query, attention, around)
    return query + attention.content_bias_HK[:, None], key, value, bias


def relative_bias(
    query_BHTK: Tensor, attention: ConformerAttention, around: Surroundings
) -> Tensor:
    """What the distance of each key adds to a query's logits, (B, H, T, T): matrices b and d of
    arXiv 1901.02860, section 3.3."""
    assert attention.position is not None
    assert attention.position_bias_HK is not None
    assert around.distances is not None
    assert around.sinusoids_RD is not None
    heads, width = query_BHTK.shape[1], query_BHTK.shape[-1]
    table_HKR = attention.position(around.sinusoids_RD).view(-1, heads, width).permute(1, 2, 0)
    by_distance_BHTR = (query_BHTK + attention.position_bias_HK[:, None]) @ table_HKR
    index_BHTT = around.distances.index_BTT[:, None].expand(len(query_BHTK), heads, -1, -1)
    return by_distance_BHTR.gather(-1, index_BHTT) / math.sqrt(width)


def convolve(
    states_BTD: Tensor, convolution: Convolution, around: Surroundings, weights: CtcWeights
) -> Tensor:
    """The residual convolution of a layer."""
    gated_BTD = F.glu(convolution.widen(norm(states_BTD, convolution.norm)), dim=-1)
    if around.owners_BT is not None:
        gated_BTD = where.spread(gated_BTD, around.owners_BT)
    taps = convolution.depthwise
    mixed_BTD = F.conv1d(
        gated_BTD.transpose(1, 2),
        taps.weight,
        taps.bias,
        padding=taps.weight.shape[-1] // 2,
        groups=len(taps.weight),
    ).transpose(1, 2)
    if around.first_k is not None:
        mixed_BTD = where.gather(mixed_BTD, around.places, around.first_k)
    return states_BTD + convolution.out(weights.activation(mixed_BTD.contiguous()))


def _turned(states_BTD: Tensor, around: Surroundings, heads: int) -> Tensor:
    """States turned by where they stand (arXiv 2104.09864), before query and key, as fairseq and
    transformers have it."""
    if around.cos_BT1K is None or around.sin_BT1K is None:
        return states_BTD
    whole_BTHK = states_BTD.view(*states_BTD.shape[:2], heads, -1)
    begin, end = whole_BTHK.chunk(2, dim=-1)
    turned = whole_BTHK * around.cos_BT1K + torch.cat([-end, begin], dim=-1) * around.sin_BT1K
    return turned.flatten(2)
