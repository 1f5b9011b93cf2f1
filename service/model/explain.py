"""What became of a window's frames, for people to look at. Nothing of it is needed to transcribe.

Only the states' positions and sizes say it, however a profile came to them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from service.model import encoder
from service.model.layers import mlp
from service.model.weights import EncoderWeights
from service.profiles import Profile
from service.types import Encoded, Kept, OpenModules

# Where frames are scored for a profile that drops none early: where the paper drops them
# (arXiv 2506.15912).
PUBLISHED_LAYER = 2


def explain(weights: EncoderWeights, mel_1FT: Tensor, profile: Profile, encoded: Encoded) -> Kept:
    """What `encoded`, the window of `mel_1FT` under the profile, kept, merged and dropped.

    The importance is worked out once more with every frame present, at the layer after which the
    profile drops; for one that chooses by attention it is the one that it chose by.
    """
    drops = profile.sparsity > 0
    layer = max(1, profile.layer) if drops else min(PUBLISHED_LAYER, len(weights.layers))
    scores_1T = importance(weights, mel_1FT, layer, profile.aggregation, encoded.gates)
    return Kept(
        positions=encoded.positions_T.cpu().numpy(),
        sizes=sizes_of(encoded).cpu().numpy(),
        importance=scores_1T[0].float().cpu().numpy(),
        layer=layer,
        aggregation=profile.aggregation,
        chosen_by_it=drops and profile.pool == "drop" and profile.selection == "attention",
    )


def sizes_of(encoded: Encoded) -> Tensor:
    """How many frames each state stands for, from its position on: int64 (k,)."""
    if not encoded.pooled:
        return torch.ones_like(encoded.positions_T)
    end = encoded.positions_T.new_tensor([encoded.total_frames])
    return torch.diff(encoded.positions_T, append=end)


def importance(
    weights: EncoderWeights,
    mel_BFT: Tensor,
    layer: int,
    aggregation: str,
    gates: OpenModules | None = None,
) -> Tensor:
    """The attention (B, T) that each frame receives at an encoder layer, from 1 on, every frame
    present: the mean over queries, `aggregation` of the heads. The frames' mean is 1 / T where
    heads are averaged. `gates`: which modules ran before it. Source: arXiv 2506.15912."""
    states = encoder.embed(weights, mel_BFT)
    for number, earlier in enumerate(weights.layers[: layer - 1]):
        attends, feeds = gates.encoder[number] if gates else encoder.EVERY
        if attends:
            states = encoder.attend(states, earlier, weights)
        if feeds:
            states = mlp(states, earlier.mlp)
    return encoder.attend_scored(states, weights.layers[layer - 1], weights, aggregation)[1]
