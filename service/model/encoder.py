"""Whisper's encoder over explicit weights, dense or winnowed: early, late or both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model import padding, sparsify
from service.model.gates import Deciding
from service.model.layers import merge_heads, mlp, norm, project
from service.model.operators.attention import attend_and_score, attend_near
from service.model.weights import EncoderLayer, EncoderWeights
from service.profiles import Profile
from service.transfer import sent

EVERY = (True, True)  # attention and MLP of a layer


def encode(
    weights: EncoderWeights,
    mel_BFT: Tensor,
    profile: Profile,
    deciding: Deciding | None = None,
) -> tuple[Tensor, Tensor]:
    """Encodes windows by one profile.

    `mel_BFT`: (B, mels, 2T), T at most the checkpoint's 1500. Returns the states (B, k, D) and
    their original frame positions (B, k), int64; a dense profile keeps k = T. Where neighbours
    are averaged, the position is that of the first of them. How many frames each counts as, where
    that differs, only `encode_laid_out` says. `deciding`: gates say which modules run, of one
    window alone; attention that chooses frames always does.
    """
    if profile.sparsity > 0 and profile.pool == "alike":
        return _encode_alike(weights, mel_BFT, profile, deciding)
    states = embed(weights, mel_BFT)
    num_windows, num_frames, _ = states.shape
    positions = torch.arange(num_frames, device=states.device).expand(num_windows, -1)
    if profile.sparsity > 0 and profile.layer == 0:
        states, positions = _thin_evenly(states, positions, profile.sparsity, profile.pool)
    for number, layer in enumerate(weights.layers, start=1):
        thins = profile.sparsity > 0 and number == profile.layer
        chooses = thins and profile.pool == "drop" and profile.selection == "attention"
        runs = EVERY
        if deciding is not None:
            runs = deciding.layer(states, positions[0], needs_attention=chooses)
        aggregation = profile.aggregation if chooses else None
        states, scores = _layer(states, layer, weights, runs, profile.reach_of(number), aggregation)
        if thins and profile.pool == "drop":
            if scores is None:
                scores = sparsify.baseline_scores(
                    profile.selection, mel_BFT, num_frames, profile.sparsity
                )
            positions = sparsify.keep_positions(scores, profile.sparsity, profile.within)
            states = states.gather(1, positions[..., None].expand(-1, -1, states.shape[-1]))
        elif thins:
            states, positions = _thin_evenly(states, positions, profile.sparsity, profile.pool)
    states = norm(states, weights.norm)
    if profile.late > 0:
        states, positions = _thin_evenly(states, positions, profile.late, profile.pool)
    return states, positions


def _layer(
    states_BTD: Tensor,
    layer: EncoderLayer,
    weights: EncoderWeights,
    runs: tuple[bool, bool],
    reach: int,
    aggregation: str | None,
) -> tuple[Tensor, Tensor | None]:
    """A layer's halves that run; with an `aggregation`, the importance (B, T) of each frame."""
    attends, feeds = runs
    scores_BT = None
    if aggregation is not None:
        states_BTD, scores_BT = attend_scored(states_BTD, layer, weights, aggregation)
    elif attends:
        states_BTD = attend(states_BTD, layer, weights, reach)
    return (mlp(states_BTD, layer.mlp) if feeds else states_BTD), scores_BT


def _encode_alike(
    weights: EncoderWeights, mel_BFT: Tensor, profile: Profile, deciding: Deciding | None
) -> tuple[Tensor, Tensor]:
    """One window after the other: each has groups of its own."""
    layout = padding.plain(mel_BFT.shape[-1] // 2)
    each = [encode_laid_out(weights, mel_FT[None], profile, layout, deciding) for mel_FT in mel_BFT]
    positions = [sent(found.positions_T, mel_BFT.device) for _, found in each]
    return torch.cat([states for states, _ in each]), torch.stack(positions)


def encode_laid_out(
    weights: EncoderWeights,
    mel_BFT: Tensor,
    profile: Profile,
    layout: padding.Layout,
    deciding: Deciding | None = None,
) -> tuple[Tensor, padding.Layout]:
    """Encodes windows of one layout, their padding averaged: the states (B, k, D), and what they
    stand for. One window alone where those are joined that are most alike, and where gates are
    `deciding`; attention by whose keys frames are alike always runs."""
    near_BFT = mel_BFT[..., : layout.mel_frames]
    states = padding.place(_stem(weights, near_BFT), weights.positions_TD, layout)
    if profile.sparsity > 0 and profile.layer == 0:
        states, layout = padding.thin(states, layout, profile.sparsity)
    for number, layer in enumerate(weights.layers, start=1):
        thins = profile.sparsity > 0 and number == profile.layer
        chooses = thins and profile.pool == "alike"
        attends, feeds = EVERY
        if deciding is not None:
            attends, feeds = deciding.layer(states, layout.positions_T, needs_attention=chooses)
        if attends:
            states, keys_BTD = attend_keyed(
                states, layer, weights, layout.log_weights(states), profile.reach_of(number)
            )
        if feeds:
            states = mlp(states, layer.mlp)
        if chooses:
            states, layout = padding.thin_alike(states, layout, profile.sparsity, keys_BTD[0])
        if number == 1:
            states, layout = padding.merge(states, layout)
        if thins and profile.pool == "mean":
            states, layout = padding.thin(states, layout, profile.sparsity)
    states = norm(states, weights.norm)
    if profile.late > 0:
        states, layout = padding.thin(states, layout, profile.late)
    return states, layout


def _thin_evenly(
    states_BTD: Tensor, positions_BT: Tensor, share: float, pool: str
) -> tuple[Tensor, Tensor]:
    """Every n-th of the states, or the means of all from each of these to the next."""
    num_frames = states_BTD.shape[1]
    first = sparsify.even_positions(num_frames, sparsify.num_kept(num_frames, share))
    on_device = sent(first, states_BTD.device)
    if pool == "mean":
        return sparsify.mean_of_neighbours(states_BTD, first), positions_BT[:, on_device]
    return states_BTD[:, on_device], positions_BT[:, on_device]


def embed(weights: EncoderWeights, mel_BFT: Tensor) -> Tensor:
    """Log-mel (B, mels, 2T) -> positioned states (B, T, D)."""
    states = _stem(weights, mel_BFT)
    return states + weights.positions_TD[: states.shape[1]]


def _stem(weights: EncoderWeights, mel_BFT: Tensor) -> Tensor:
    """The two convolutions: (B, mels, 2T) -> (B, T, D)."""
    stem = F.gelu(F.conv1d(mel_BFT, weights.conv1.weight, weights.conv1.bias, padding=1))
    stem = F.gelu(F.conv1d(stem, weights.conv2.weight, weights.conv2.bias, stride=2, padding=1))
    return stem.transpose(1, 2).contiguous()  # what is added to it would keep its layout


def attend(
    states_BTD: Tensor, layer: EncoderLayer, weights: EncoderWeights, reach: int = 0
) -> Tensor:
    """The residual self-attention half of a layer; `reach` as `attend_near` has it, 0: all."""
    return attend_keyed(states_BTD, layer, weights, reach=reach)[0]


def attend_keyed(
    states_BTD: Tensor,
    layer: EncoderLayer,
    weights: EncoderWeights,
    log_weights_T: Tensor | None = None,
    reach: int = 0,
) -> tuple[Tensor, Tensor]:
    """The same half, and the frames' keys (B, T, D); where states stand for several frames, the
    logarithms of how many count."""
    query, key, value = project(states_BTD, layer.attention, weights.heads)
    if reach:
        context = attend_near(weights.attend, query, key, value, log_weights_T, reach)
    else:
        context = weights.attend(query, key, value, log_weights_T)
    return states_BTD + layer.attention.out(merge_heads(context)), merge_heads(key)


def attend_scored(
    states_BTD: Tensor, layer: EncoderLayer, weights: EncoderWeights, aggregation: str
) -> tuple[Tensor, Tensor]:
    """The same half, with the importance (B, T) of each frame: `I[t]` = aggregate over heads of
    the attention that it receives."""
    context, received_BHT = attend_and_score(*project(states_BTD, layer.attention, weights.heads))
    scores_BT = sparsify.aggregate_heads(received_BHT, aggregation)
    return states_BTD + layer.attention.out(merge_heads(context)), scores_BT
