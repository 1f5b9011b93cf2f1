from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from whisper.model import Whisper as OpenAIWhisper

from service.model import encoder
from service.model.checkpoint import Checkpoint, load_checkpoint
from service.model.sparsify import attend_and_score, baseline_scores, keep_positions, num_kept
from service.profiles import SELECTIONS, Profile
from tests.checkpoints import to_openai_whisper
from tests.model.windows import noise

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
    return load_checkpoint(str(mini_folder), device="cpu")


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


@pytest.mark.parametrize("selection", SELECTIONS)
@torch.inference_mode()
def test_sparsity_0_is_dense_bit_for_bit(checkpoint: Checkpoint, selection: str) -> None:
    mel = noise(2)[..., :FEW]
    dense, positions = encoder.encode(checkpoint.weights.encoder, mel, Profile("dense"))
    profile = Profile("none-dropped", layer=2, sparsity=0.0, selection=selection)
    states, all_positions = encoder.encode(checkpoint.weights.encoder, mel, profile)
    assert torch.equal(states, dense)
    assert torch.equal(all_positions, positions)


@torch.inference_mode()
def test_explicit_attention_is_the_fused_one(checkpoint: Checkpoint) -> None:
    source = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 50, 16, generator=source)
    context, received = attend_and_score(query, key, value, "mean")
    assert_close(context, F.scaled_dot_product_attention(query, key, value), atol=1e-5, rtol=0)
    assert_close(received.sum(-1), torch.ones(2))  # every query gives away 1 in all


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


def test_of_equal_scores_the_earlier_frames_are_kept() -> None:
    """In a whole window: short rows are sorted stably whether asked to or not."""
    scores_T = torch.arange(1500) % 3 == 0  # 500 level above 1000 level ones
    kept = keep_positions(scores_T[None].float(), 0.5)[0].tolist()
    others = [frame for frame in range(1500) if frame % 3][:250]
    assert kept == sorted([*range(0, 1500, 3), *others])


@given(st.lists(scores, min_size=2, max_size=4), sparsities)
def test_a_window_keeps_the_same_frames_in_any_batch(
    rows: list[list[float]], sparsity: float
) -> None:
    length = min(map(len, rows))
    scores_BT = torch.tensor([row[:length] for row in rows])
    together = keep_positions(scores_BT, sparsity)
    alone = torch.cat([keep_positions(scores_T[None], sparsity) for scores_T in scores_BT])
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


@pytest.mark.parametrize("selection", SELECTIONS)
@torch.inference_mode()
def test_every_selection_keeps_the_same_number(checkpoint: Checkpoint, selection: str) -> None:
    profile = Profile("p", layer=1, sparsity=0.6, selection=selection)
    states, positions = encoder.encode(checkpoint.weights.encoder, noise(2)[..., :FEW], profile)
    assert states.shape[:2] == positions.shape == (2, num_kept(FEW // 2, 0.6))
    assert positions.dtype == torch.int64
    assert (positions.diff(dim=-1) > 0).all()
