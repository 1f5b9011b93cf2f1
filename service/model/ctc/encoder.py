"""A CTC model's encoder over explicit weights, dense or winnowed: early, late or both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model import padding, sparsify
from service.model.ctc import conformer, places
from service.model.ctc.conformer import Surroundings
from service.model.ctc.places import Places
from service.model.ctc.weights import ConformerLayer, CtcWeights, Stem
from service.model.layers import merge_heads, norm, split_heads
from service.model.operators.attention import attend_and_score, attend_biased
from service.model.weights import EncoderLayer
from service.profiles import Profile
from service.transfer import sent

TINY = 1e-7  # added to a window's variance, as transformers' `Wav2Vec2FeatureExtractor` has it


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What a layer gives: states, and of its attention the keys (B, T, D) and, where it was asked
    to score, the importance of each frame (B, T)."""

    states_BTD: Tensor
    keys_BTD: Tensor
    scores_BT: Tensor | None


def normalise(wave_BS: Tensor) -> Tensor:
    """Windows of samples to a mean of 0 and a variance of 1, each for itself."""
    variance_B1, mean_B1 = torch.var_mean(wave_BS, dim=1, keepdim=True, correction=0)
    return (wave_BS - mean_B1) / (variance_B1 + TINY).sqrt()


def encode(weights: CtcWeights, wave_BS: Tensor, profile: Profile) -> tuple[Tensor, Places]:
    """Encodes windows of one length by one profile, one window alone where those frames are joined
    that are most alike.

    `wave_BS`: what the stem reads, of at least as many samples as its first frame looks at. Returns
    the states (B, k, D), and where they stand. Of a profile, `padding` and `reach` mean nothing
    here: a window has no padding.
    """
    states_BTD = embed(weights, wave_BS)
    at = places.whole(states_BTD)
    if profile.sparsity > 0 and profile.layer == 0:
        states_BTD, at = _thin_evenly(states_BTD, at, profile.sparsity, profile.pool)
    around = conformer.look_around(weights, at, states_BTD)
    for number, layer in enumerate(weights.layers, start=1):
        thins = profile.sparsity > 0 and number == profile.layer
        by_attention = thins and profile.pool == "drop" and profile.selection == "attention"
        through = run_layer(
            weights, layer, states_BTD, around, profile.aggregation if by_attention else None
        )
        states_BTD = through.states_BTD
        if thins:
            states_BTD, at = _thin(through, at, wave_BS, weights, profile)
            around = conformer.look_around(weights, at, states_BTD)
    if weights.dims.norm_first:
        states_BTD = norm(states_BTD, weights.norm)
    if profile.late > 0:
        states_BTD, at = _thin_evenly(states_BTD, at, profile.late, profile.pool)
    return states_BTD, at


def importance(weights: CtcWeights, wave_BS: Tensor, layer: int, aggregation: str) -> Tensor:
    """The attention (B, T) that each frame receives at an encoder layer, from 1 on, every frame
    present: the mean over queries, `aggregation` of the heads. Source: arXiv 2506.15912."""
    states_BTD = embed(weights, wave_BS)
    at = places.whole(states_BTD)
    around = conformer.look_around(weights, at, states_BTD)
    for earlier in weights.layers[: layer - 1]:
        states_BTD = run_layer(weights, earlier, states_BTD, around).states_BTD
    scores_BT = run_layer(
        weights, weights.layers[layer - 1], states_BTD, around, aggregation
    ).scores_BT
    assert scores_BT is not None
    return scores_BT


def embed(weights: CtcWeights, wave_BS: Tensor) -> Tensor:
    """Samples (B, S) -> what the first layer reads (B, T, D)."""
    states_BTD = features(weights.stem, wave_BS)
    conv = weights.position_conv
    if conv is not None:
        width = conv.weight.shape[-1]
        where_BDT = F.conv1d(
            states_BTD.transpose(1, 2),
            conv.weight,
            conv.bias,
            padding=width // 2,
            groups=weights.dims.position_groups,
        )
        # An even width gives a frame too many.
        where_BTD = where_BDT[..., : states_BTD.shape[1]].transpose(1, 2)
        states_BTD = states_BTD + weights.stem.activation(where_BTD)
    # Behind a transpose, what is added to it would keep its layout.
    return (states_BTD if weights.dims.norm_first else norm(states_BTD, weights.norm)).contiguous()


def features(stem: Stem, wave_BS: Tensor) -> Tensor:
    """The convolutions over samples: (B, S) -> (B, T, D), 20 ms a frame."""
    x_BCT = wave_BS[:, None]
    for one in stem.convs:
        x_BCT = F.conv1d(x_BCT, one.conv.weight, one.conv.bias, stride=one.stride)
        if one.norm is not None and one.grouped:
            x_BCT = F.group_norm(x_BCT, len(one.norm.weight), one.norm.weight, one.norm.bias)
        elif one.norm is not None:
            x_BCT = norm(x_BCT.transpose(1, 2), one.norm).transpose(1, 2)
        x_BCT = stem.activation(x_BCT)
    x_BTC = x_BCT.transpose(1, 2).contiguous()
    return stem.projection(x_BTC if stem.norm is None else norm(x_BTC, stem.norm))


def run_layer(
    weights: CtcWeights,
    layer: EncoderLayer | ConformerLayer,
    states_BTD: Tensor,
    around: Surroundings,
    aggregation: str | None = None,
) -> Layer:
    """A layer, its attention scored where there is an `aggregation` of heads."""
    if isinstance(layer, ConformerLayer):
        return _conform(weights, layer, states_BTD, around, aggregation)
    return _transform(weights, layer, states_BTD, around, aggregation)


def _transform(
    weights: CtcWeights,
    layer: EncoderLayer,
    states_BTD: Tensor,
    around: Surroundings,
    aggregation: str | None,
) -> Layer:
    """Attention, then feed-forward, each with what it read added; normed before or behind."""
    first, attention, mlp = weights.dims.norm_first, layer.attention, layer.mlp
    read_BTD = norm(states_BTD, attention.norm) if first else states_BTD
    query, key, value = (
        split_heads(part, weights.dims.heads)
        for part in attention.query_key_value(read_BTD).chunk(3, dim=-1)
    )
    context, scores_BT = _attend(weights, (query, key, value), None, around, aggregation)
    states_BTD = states_BTD + attention.out(merge_heads(context))
    states_BTD = states_BTD if first else norm(states_BTD, attention.norm)
    read_BTD = norm(states_BTD, mlp.norm) if first else states_BTD
    states_BTD = states_BTD + mlp.down(weights.activation(mlp.up(read_BTD)))
    states_BTD = states_BTD if first else norm(states_BTD, mlp.norm)
    return Layer(states_BTD, merge_heads(key), scores_BT)


def _conform(
    weights: CtcWeights,
    layer: ConformerLayer,
    states_BTD: Tensor,
    around: Surroundings,
    aggregation: str | None,
) -> Layer:
    """Half a feed-forward, attention, convolution, the other half."""
    states_BTD = conformer.half_mlp(states_BTD, layer.before, weights)
    query, key, value, bias = conformer.project(
        states_BTD, layer.attention, around, weights.dims.heads
    )
    context, scores_BT = _attend(weights, (query, key, value), bias, around, aggregation)
    states_BTD = states_BTD + layer.attention.out(merge_heads(context))
    states_BTD = conformer.convolve(states_BTD, layer.convolution, around, weights)
    states_BTD = conformer.half_mlp(states_BTD, layer.after, weights)
    return Layer(norm(states_BTD, layer.norm), merge_heads(key), scores_BT)


def _attend(
    weights: CtcWeights,
    heads: tuple[Tensor, Tensor, Tensor],
    bias_BHTT: Tensor | None,
    around: Surroundings,
    aggregation: str | None,
) -> tuple[Tensor, Tensor | None]:
    """The context (B, H, T, K) of query, key and value; with an `aggregation`, the scores too."""
    if aggregation is not None:
        context, received_BHT = attend_and_score(*heads, bias_BHTT)
        return context, sparsify.aggregate_heads(received_BHT, aggregation)
    by_state_T = around.places.log_weights_T
    if bias_BHTT is None:
        return weights.attend(*heads, by_state_T), None
    return attend_biased(*heads, bias_BHTT if by_state_T is None else bias_BHTT + by_state_T), None


def _thin(
    through: Layer, at: Places, wave_BS: Tensor, weights: CtcWeights, profile: Profile
) -> tuple[Tensor, Places]:
    """What is left of every frame's states behind the layer that the profile thins after."""
    states_BTD = through.states_BTD
    if profile.pool == "mean":
        return _thin_evenly(states_BTD, at, profile.sparsity, profile.pool)
    if profile.pool == "alike":
        return _join_alike(states_BTD, at, through.keys_BTD, profile.sparsity)
    scores_BT = through.scores_BT
    if scores_BT is None:
        level_B1T = loudness(wave_BS, at.num_frames, weights.dims.frame_samples)
        scores_BT = sparsify.baseline_scores(
            profile.selection, level_B1T, at.num_frames, profile.sparsity
        )
    kept_BT = sparsify.keep_positions(scores_BT, profile.sparsity, profile.within)
    states_BTD = states_BTD.gather(1, kept_BT[..., None].expand(-1, -1, states_BTD.shape[-1]))
    return states_BTD, Places(kept_BT, at.num_frames)


def loudness(wave_BS: Tensor, num_frames: int, frame_samples: int) -> Tensor:
    """(B, 1, num_frames): the logarithm of the power of each frame's own samples."""
    whole_BS = F.pad(wave_BS.float(), (0, max(0, num_frames * frame_samples - wave_BS.shape[1])))
    frames_BTS = whole_BS[:, : num_frames * frame_samples].view(len(wave_BS), num_frames, -1)
    return (frames_BTS.square().mean(-1) + TINY).log()[:, None]


def _thin_evenly(states_BTD: Tensor, at: Places, share: float, pool: str) -> tuple[Tensor, Places]:
    """Every n-th of the states, or the means of all from each of these to the next."""
    num_states = states_BTD.shape[1]
    first = sparsify.even_positions(num_states, sparsify.num_kept(num_states, share))
    on_device = sent(first, states_BTD.device)
    positions_BT = at.positions_BT[:, on_device]
    if pool == "drop":
        return states_BTD[:, on_device], Places(positions_BT, at.num_frames)
    states_BTD = sparsify.mean_of_neighbours(states_BTD, first)
    return states_BTD, Places(positions_BT, at.num_frames, pooled=True)


def _join_alike(
    states_1TD: Tensor, at: Places, keys_1TD: Tensor, share: float
) -> tuple[Tensor, Places]:
    layout = padding.plain(at.num_frames)
    states_1TD, layout = padding.thin_alike(states_1TD, layout, share, keys_1TD[0])
    return states_1TD, Places(
        sent(layout.positions_T, states_1TD.device)[None],
        at.num_frames,
        pooled=True,
        log_weights_T=None if layout.is_even else layout.log_weights(states_1TD),
    )
