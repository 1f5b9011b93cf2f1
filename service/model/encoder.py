"""Whisper's encoder over explicit weights, dense or winnowed after an early layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from service.model import sparsify
from service.model.layers import linear, merge_heads, mlp, norm, split_heads
from service.model.weights import EncoderLayer, EncoderWeights
from service.profiles import Profile


def encode(weights: EncoderWeights, mel_BFT: Tensor, profile: Profile) -> tuple[Tensor, Tensor]:
    """Encodes windows by one profile.

    `mel_BFT`: (B, mels, 2T), T at most the checkpoint's 1500. Returns the states (B, k, D) and
    their original frame positions (B, k), int64; a dense profile keeps k = T.
    """
    states, positions, _ = encode_watched(weights, mel_BFT, profile)
    return states, positions


def encode_watched(
    weights: EncoderWeights, mel_BFT: Tensor, profile: Profile
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The same, and the scores (B, T) by which frames were kept, or None where all were."""
    scores: Tensor | None = None
    states = embed(weights, mel_BFT)
    num_windows, num_frames, _ = states.shape
    positions = torch.arange(num_frames, device=states.device).expand(num_windows, -1)
    for number, layer in enumerate(weights.layers, start=1):
        if profile.is_dense or number != profile.layer:
            states = attend(states, layer, weights.heads)
        elif profile.selection == "attention":
            states, scores = attend_scored(states, layer, weights.heads, profile.aggregation)
            positions = sparsify.keep_positions(scores, profile.sparsity)
        else:
            states = attend(states, layer, weights.heads)
            scores = sparsify.baseline_scores(
                profile.selection, mel_BFT, num_frames, profile.sparsity
            )
            positions = sparsify.keep_positions(scores, profile.sparsity)
        states = mlp(states, layer.mlp)
        if not profile.is_dense and number == profile.layer:
            states = states.gather(1, positions[..., None].expand(-1, -1, states.shape[-1]))
    return norm(states, weights.norm), positions, scores


def embed(weights: EncoderWeights, mel_BFT: Tensor) -> Tensor:
    """Log-mel (B, mels, 2T) -> positioned states (B, T, D)."""
    stem = F.gelu(F.conv1d(mel_BFT, weights.conv1.weight, weights.conv1.bias, padding=1))
    stem = F.gelu(F.conv1d(stem, weights.conv2.weight, weights.conv2.bias, stride=2, padding=1))
    states = stem.transpose(1, 2)
    return states + weights.positions_TD[: states.shape[1]]


def attend(states_BTD: Tensor, layer: EncoderLayer, heads: int) -> Tensor:
    """The residual self-attention half of a layer, fused."""
    context = F.scaled_dot_product_attention(*_project(states_BTD, layer, heads))
    return states_BTD + linear(merge_heads(context), layer.attention.out)


def attend_scored(
    states_BTD: Tensor, layer: EncoderLayer, heads: int, aggregation: str
) -> tuple[Tensor, Tensor]:
    """The same half, explicit, with the importance (B, T) of each frame."""
    context, scores = sparsify.attend_and_score(*_project(states_BTD, layer, heads), aggregation)
    return states_BTD + linear(merge_heads(context), layer.attention.out), scores


def _project(states_BTD: Tensor, layer: EncoderLayer, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    attention = layer.attention
    normed = norm(states_BTD, attention.norm)
    return (
        split_heads(linear(normed, attention.query), heads),
        split_heads(linear(normed, attention.key), heads),
        split_heads(linear(normed, attention.value), heads),
    )
