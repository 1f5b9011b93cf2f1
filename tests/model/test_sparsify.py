from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from whisper.model import Whisper as OpenAIWhisper

from service.model import encoder
from service.model.checkpoint import Checkpoint
from service.model.operators.attention import attend_and_score, attend_near, fused
from service.model.sparsify import (
    alike_positions,
    baseline_scores,
    even_positions,
    keep_positions,
    mean_of_neighbours,
    num_kept,
)
from service.profiles import SELECTIONS, Profile
from tests.checkpoints import load_plain, to_openai_whisper
from tests.windows import noise

AGGREGATE = {
    "mean": lambda heads: heads.mean(1),
    "max": lambda heads: heads.max(1).values,
    "min": lambda heads: heads.min(1).values,
    "median": lambda heads: heads.sort(1).values[:, (heads.shape[1] - 1) // 2],
}
FEW = 400  # mel frames, where a whole window would prove no more
scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40)
sparsities = st.floats(0, 1, exclude_max=True)


@pytest.fixture(scope="module")
def checkpoint(mini_folder: Path) -> Checkpoint:
    return load_plain(str(mini_folder))


@pytest.fixture(scope="module")
def openai(mini_folder: Path) -> OpenAIWhisper:
    return to_openai_whisper(mini_folder)


def eas(model: OpenAIWhisper, mel: Tensor, profile: Profile) -> tuple[Tensor, Tensor]:
    """Early Attentive Sparsification, written from arXiv 2506.15912 over openai-whisper."""
    x = F.gelu(model.encoder.conv2(F.gelu(model.encoder.conv1(mel)))).transpose(1, 2)
    x = x + model.encoder.positional_embedding
    early, late = model.encoder.blocks[: profile.layer], model.encoder.blocks[profile.layer :]
    for block in early:
        scored, x = block.attn_ln(x), block(x)
    query, key = (
        project(scored).unflatten(-1, (block.attn.n_head, -1)).transpose(1, 2)
        for project in (block.attn.query, block.attn.key)
    )
    attention = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
    importance = AGGREGATE[profile.aggregation](attention.mean(dim=2))
    k = round((1 - profile.sparsity) * x.shape[1])
    kept = importance.topk(k).indices.sort().values
    x = torch.stack([window[positions] for window, positions in zip(x, kept, strict=True)])
    for block in late:
        x = block(x)
    return model.encoder.ln_post(x), kept


@pytest.mark.parametrize("aggregation", AGGREGATE)
@pytest.mark.parametrize(("layer", "sparsity"), [(1, 0.6), (2, 0.5)])
@torch.inference_mode()
def test_eas_is_the_formula(
    checkpoint: Checkpoint, openai: OpenAIWhisper, aggregation: str, layer: int, sparsity: float
) -> None:
    profile = Profile("p", layer, sparsity, aggregation)
    mel = noise(1)
    states, positions = encoder.encode(checkpoint.weights.encoder, mel, profile)
    expected, kept = eas(openai, mel, profile)
    assert torch.equal(positions, kept)
    assert_close(states, expected, atol=1e-4, rtol=0)


def thinned(frames: Tensor, share: float, pool: str) -> Tensor:
    """(T, D) -> (k, D): every n-th of the frames, or the means of as many groups in a row."""
    k = round((1 - share) * len(frames))
    edges = [n * len(frames) // k for n in range(k + 1)]
    if pool == "drop":
        return frames[edges[:-1]]
    return torch.stack([frames[a:b].sum(0) / (b - a) for a, b in pairwise(edges)])


@pytest.mark.parametrize("pool", ["drop", "mean"])
@pytest.mark.parametrize(("sparsity", "late"), [(0.5, 0.0), (0.4, 0.5), (0.0, 2 / 3)])
@torch.inference_mode()
def test_frames_are_thinned_evenly_early_and_late(
    checkpoint: Checkpoint, openai: OpenAIWhisper, pool: str, sparsity: float, late: float
) -> None:
    mel, audio = noise(1)[..., :FEW], openai.encoder
    x = F.gelu(audio.conv2(F.gelu(audio.conv1(mel)))).transpose(1, 2)
    x = audio.blocks[0](x + audio.positional_embedding[: FEW // 2])
    x = audio.ln_post(audio.blocks[1](thinned(x[0], sparsity, pool)[None]))
    expected = thinned(x[0], late, pool)
    selection = "stride" if pool == "drop" else "attention"
    profile = Profile("p", 1, sparsity, selection=selection, pool=pool, late=late)
    states, positions = encoder.encode(checkpoint.weights.encoder, mel, profile)
    assert_close(states[0], expected, atol=1e-4, rtol=0)
    first = thinned(torch.arange(FEW // 2)[:, None], sparsity, "drop")
    assert positions[0].tolist() == thinned(first, late, "drop").flatten().tolist()


@torch.inference_mode()
def test_frames_may_be_averaged_before_the_first_layer(
    checkpoint: Checkpoint, openai: OpenAIWhisper
) -> None:
    mel, audio = noise(1)[..., :FEW], openai.encoder
    x = F.gelu(audio.conv2(F.gelu(audio.conv1(mel)))).transpose(1, 2)
    x = thinned(x[0] + audio.positional_embedding[: FEW // 2], 0.5, "mean")[None]
    expected = audio.ln_post(audio.blocks[1](audio.blocks[0](x)))
    profile = Profile("p", 0, 0.5, pool="mean")
    states, positions = encoder.encode(checkpoint.weights.encoder, mel, profile)
    assert_close(states, expected, atol=1e-4, rtol=0)
    assert positions[0].tolist() == list(range(0, FEW // 2, 2))


@torch.inference_mode()
def test_the_most_alike_are_found_by_the_keys_of_the_layer_before(
    checkpoint: Checkpoint, openai: OpenAIWhisper
) -> None:
    mel, audio = noise(1)[..., :FEW], openai.encoder
    x = F.gelu(audio.conv2(F.gelu(audio.conv1(mel)))).transpose(1, 2)
    x = x + audio.positional_embedding[: FEW // 2]
    attention = audio.blocks[0].attn
    keys = attention.key(audio.blocks[0].attn_ln(x))[0]
    profile = Profile("p", 1, 0.5, pool="alike")
    _, positions = encoder.encode(checkpoint.weights.encoder, mel, profile)
    assert positions[0].tolist() == alike_positions(keys, FEW // 4).tolist()


@torch.inference_mode()
def test_local_eas_drops_late_what_is_left(checkpoint: Checkpoint) -> None:
    mel = noise(1)[..., :FEW]
    local = Profile("p", 1, 0.5, "max", within=2)
    states, positions = encoder.encode(checkpoint.weights.encoder, mel, local)
    assert (positions[0] // 2).tolist() == list(range(FEW // 4))  # one of each pair
    assert set((positions[0] % 2).tolist()) == {0, 1}
    fewer, at = encoder.encode(checkpoint.weights.encoder, mel, replace(local, late=0.5))
    assert torch.equal(fewer, states[:, ::2])
    assert torch.equal(at, positions[:, ::2])


@pytest.mark.parametrize(
    "choices",
    [
        *({"selection": selection} for selection in SELECTIONS),
        {"within": 2},
        {"pool": "mean"},
        {"pool": "alike"},
    ],
    ids=lambda choices: "-".join(map(str, choices.values())),
)
@torch.inference_mode()
def test_sparsity_0_is_dense_bit_for_bit(checkpoint: Checkpoint, choices: dict[str, Any]) -> None:
    mel = noise(2)[..., :FEW]
    dense, positions = encoder.encode(checkpoint.weights.encoder, mel, Profile("dense"))
    profile = Profile("none-dropped", layer=2, sparsity=0.0, **choices)
    states, all_positions = encoder.encode(checkpoint.weights.encoder, mel, profile)
    assert torch.equal(states, dense)
    assert torch.equal(all_positions, positions)


@torch.inference_mode()
def test_explicit_attention_is_the_fused_one(checkpoint: Checkpoint) -> None:
    source = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 50, 16, generator=source)
    context, received = attend_and_score(query, key, value)
    assert_close(context, F.scaled_dot_product_attention(query, key, value), atol=1e-5, rtol=0)
    assert_close(received.sum(-1), torch.ones(2, 4))  # every query gives away 1 in all


@pytest.mark.parametrize("reach", [7, 20, 50])
def test_attention_reaches_at_least_so_far_and_no_further_than_its_block_does(reach: int) -> None:
    source = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 50, 16, generator=source)
    bias = torch.randn(50, generator=source)
    at = torch.arange(50)
    block = at // (2 * reach) * 2 * reach
    sees = (at >= block[:, None] - reach) & (at < block[:, None] + 3 * reach)
    mask = torch.zeros(50, 50).masked_fill(~sees, -math.inf) + bias
    assert bool(sees[(at[:, None] - at).abs() <= reach].all())
    expected = F.scaled_dot_product_attention(query, key, value, mask)
    assert_close(attend_near(fused, query, key, value, bias, reach), expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_layers_before_the_thinning_look_around_those_after_at_all(checkpoint: Checkpoint) -> None:
    """A change in the last frames is not seen in the first ones by two layers that reach no
    further, and is by one after them."""
    mel = noise(1)[..., :FEW]
    other = torch.cat([mel[..., :-20], -mel[..., -20:]], dim=-1)
    weights = checkpoint.weights.encoder
    near = Profile("p", reach=20)
    some, same = (encoder.encode(weights, one, near)[0] for one in (mel, other))
    assert torch.equal(some[:, :40], same[:, :40])
    assert not torch.equal(some[:, -1], same[:, -1])
    thins = replace(near, layer=1, sparsity=0.5, pool="mean")
    some, same = (encoder.encode(weights, one, thins)[0] for one in (mel, other))
    assert not torch.equal(some[:, :20], same[:, :20])


@torch.inference_mode()
def test_the_last_layer_may_be_the_scoring_one(checkpoint: Checkpoint) -> None:
    mel = noise(1)[..., :FEW]
    dense, _ = encoder.encode(checkpoint.weights.encoder, mel, Profile("dense"))
    last = Profile("p", layer=2, sparsity=0.5)
    states, positions = encoder.encode(checkpoint.weights.encoder, mel, last)
    assert_close(states[0], dense[0, positions[0]], atol=1e-4, rtol=0)


@given(scores, sparsities)
def test_the_best_k_are_kept_in_time_order(scores: list[float], sparsity: float) -> None:
    positions = keep_positions(torch.tensor([scores]), sparsity)[0].tolist()
    assert len(positions) == max(1, round((1 - sparsity) * len(scores)))
    assert positions == sorted(set(positions))
    assert set(positions) <= set(range(len(scores)))
    dropped = set(range(len(scores))) - set(positions)
    # Of equal scores the earlier frame: nothing dropped beats, or is level with and before, a kept.
    assert all((scores[d], -d) < (scores[k], -k) for d in dropped for k in positions)


@given(scores, sparsities, st.integers(2, 45))
def test_each_neighbourhood_keeps_the_best_of_its_share(
    scores: list[float], sparsity: float, within: int
) -> None:
    k, kept = max(1, round((1 - sparsity) * len(scores))), []
    for first in range(0, len(scores), within):
        end = min(first + within, len(scores))
        share = end * k // len(scores) - first * k // len(scores)
        best = sorted(range(first, end), key=lambda frame: (-scores[frame], frame))
        kept += sorted(best[:share])
    assert len(kept) == k
    assert keep_positions(torch.tensor([scores]), sparsity, within)[0].tolist() == kept


def test_shares_that_do_not_divide_are_spread_evenly() -> None:
    """A whole window in neighbourhoods of seven, of which the last has two frames."""
    kept = keep_positions(torch.rand(1, 1500), 0.6, 7)[0]
    shares = torch.bincount(kept // 7, minlength=215)
    assert (int(shares.sum()), set(shares[:-1].tolist())) == (600, {2, 3})
    ahead = shares.cumsum(0)[:-1] - torch.arange(7, 1500, 7) * 0.4
    assert bool((ahead.abs() < 1).all())


@given(
    st.lists(st.floats(-9, 9, width=16), min_size=1, max_size=40), st.floats(0, 1, exclude_max=True)
)
def test_a_mean_is_that_of_neighbours_in_a_row(values: list[float], share: float) -> None:
    frames = torch.tensor(values)[None, :, None].expand(2, -1, 3)
    first = even_positions(len(values), num_kept(len(values), share))
    edges = [*first.tolist(), len(values)]
    expected = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    means = mean_of_neighbours(frames, first)
    assert means.shape == (2, len(first), 3)
    assert means[1, :, 2].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("share", "sizes"), [(0.5, {2}), (2 / 3, {3}), (0.4, {1, 2}), (0.6, {2, 3}), (0.0, {1})]
)
def test_groups_are_as_large_as_the_sparsity_asks(share: float, sizes: set[int]) -> None:
    first = even_positions(1500, num_kept(1500, share))
    assert set(torch.diff(first, append=torch.tensor([1500])).tolist()) == sizes


def test_means_are_summed_in_float32_and_one_frame_stays_itself() -> None:
    frames = torch.tensor([256.0, 1, 0, 0, 0, 0.1], dtype=torch.bfloat16)[None, :, None]
    means = mean_of_neighbours(frames, torch.tensor([0, 5]))
    assert means.dtype == torch.bfloat16
    assert means.flatten().tolist() == [51.5, frames[0, 5, 0].item()]  # bfloat16 has no 257


def test_of_equal_scores_the_earlier_frames_are_kept() -> None:
    """In a whole window: short rows are sorted stably whether asked to or not."""
    scores_T = torch.arange(1500) % 3 == 0  # 500 level above 1000 level ones
    kept = keep_positions(scores_T[None].float(), 0.5)[0].tolist()
    others = [frame for frame in range(1500) if frame % 3][:250]
    assert kept == sorted([*range(0, 1500, 3), *others])


@given(st.lists(scores, min_size=2, max_size=4), sparsities, st.sampled_from([0, 2, 3, 50]))
def test_a_window_keeps_the_same_frames_in_any_batch(
    rows: list[list[float]], sparsity: float, within: int
) -> None:
    length = min(map(len, rows))
    scores_BT = torch.tensor([row[:length] for row in rows])
    together = keep_positions(scores_BT, sparsity, within)
    alone = torch.cat([keep_positions(scores_T[None], sparsity, within) for scores_T in scores_BT])
    assert torch.equal(together, alone)


def test_stride_takes_frames_at_even_distances() -> None:
    scores_BT = baseline_scores("stride", torch.zeros(1, 80, 20), 10, 0.6)
    assert keep_positions(scores_BT, 0.6).tolist() == [[0, 2, 5, 7]]


def test_energy_takes_the_loudest_frames() -> None:
    mel = torch.zeros(1, 80, 20)
    mel[..., 6:8] = 1.0  # frame 3
    mel[..., 18:20] = 2.0  # frame 9
    assert keep_positions(baseline_scores("energy", mel, 10, 0.8), 0.8).tolist() == [[3, 9]]


def test_random_draws_the_same_frames_for_every_window_and_call() -> None:
    draws = [baseline_scores("random", torch.zeros(2, 80, 200), 100, 0.5) for _ in range(2)]
    assert torch.equal(draws[0], draws[1])
    kept = keep_positions(draws[0], 0.5)
    assert torch.equal(kept[0], kept[1])
    assert kept[0].tolist() != list(range(50))


@pytest.mark.parametrize(
    "choices",
    [
        *({"selection": selection} for selection in SELECTIONS),
        {"within": 7},
        {"selection": "energy", "within": 7},
        {"pool": "mean"},
    ],
    ids=lambda choices: "-".join(map(str, choices.values())),
)
@torch.inference_mode()
def test_every_choice_keeps_the_same_number(
    checkpoint: Checkpoint, choices: dict[str, Any]
) -> None:
    profile = Profile("p", layer=1, sparsity=0.6, **choices)
    states, positions = encoder.encode(checkpoint.weights.encoder, noise(2)[..., :FEW], profile)
    assert states.shape[:2] == positions.shape == (2, num_kept(FEW // 2, 0.6))
    assert positions.dtype == torch.int64
    assert (positions.diff(dim=-1) > 0).all()


def by_hand(frames: list[Tensor], num: int) -> list[int]:
    """Ward's method as it is written down: all neighbours tried for every group that is made."""

    def variance(group: list[Tensor]) -> float:
        rows = torch.stack(group).double()
        return float((rows - rows.mean(0)).square().sum())

    most = -(-2 * len(frames) // num)
    groups = [[frame] for frame in frames]
    while len(groups) > num:
        growths = [
            (variance(a + b) - variance(a) - variance(b), at)
            for at, (a, b) in enumerate(pairwise(groups))
            if len(a + b) <= most
        ]
        at = min(growths)[1]
        groups[at : at + 2] = [groups[at] + groups[at + 1]]
    firsts, at = [], 0
    for group in groups:
        firsts.append(at)
        at += len(group)
    return firsts


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.data())
def test_the_most_alike_neighbours_are_joined(num_frames: int, data: st.DataObject) -> None:
    num = data.draw(st.integers(1, num_frames))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    keys = torch.randn(num_frames, 4, generator=random).cumsum(0)
    assert alike_positions(keys, num).tolist() == by_hand(list(keys), num)
