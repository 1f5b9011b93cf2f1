"""Windows whose padding is averaged, through encoder and decoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from service.audio.mel import log_mel
from service.decode.packed import empty_cache
from service.families.whisper import Whisper
from service.model import decoder, encoder
from service.model.operators.attention import by_head
from service.model.plan import plan_of
from service.profiles import Profile
from service.types import SAMPLE_RATE, DecodeOptions, Encoded, Hypothesis
from tests.checkpoints import load_plain

SHORT = Profile("short", padding=8)
BOTH = Profile("both", layer=1, sparsity=0.5, pool="mean", late=0.25, padding=8)
ALIKE = Profile("alike", layer=1, sparsity=0.5, pool="alike")
PADDED = replace(ALIKE, name="padded", padding=8)
SECONDS = (2.0, 5.0, 2.1, 30.0)
FRAMES = [round(50 * seconds) for seconds in SECONDS]


@pytest.fixture(scope="module")
def model(mini_folder: Path) -> Whisper:
    return Whisper(load_plain(str(mini_folder)))


@pytest.fixture(scope="module")
def mel() -> Tensor:
    random = torch.Generator().manual_seed(0)
    clips = [torch.randn(int(s * SAMPLE_RATE), generator=random).numpy() for s in SECONDS]
    return log_mel(clips, 80)


def texts(model: Whisper, encoded: list[Encoded]) -> list[tuple[int, ...]]:
    batch = model.new_decode_batch()
    batch.join(range(len(encoded)), encoded, [DecodeOptions("en")] * len(encoded))
    batch.token_limit = 20
    done: dict[int, Hypothesis] = {}
    while len(batch):
        done |= batch.step()
    return [done[key].tokens for key in range(len(encoded))]


def test_a_window_keeps_what_its_layout_says(model: Whisper, mel: Tensor) -> None:
    encoded = model.encode(mel, [SHORT, BOTH, SHORT, SHORT], FRAMES)
    assert [len(one.states_TD) for one in encoded] == [235, 187, 235, 1500]
    stem = replace(BOTH, layer=0, late=0.0)
    lengths = [len(one.states_TD) for one in model.encode(mel, [stem] * 4, FRAMES)]
    assert lengths == [160, 225, 160, 750]
    for one, frames in zip(encoded, FRAMES, strict=True):
        assert one.audio_frames == frames
        assert len(one.positions_T) == len(one.states_TD)
        assert (one.log_weights_T is None) == (frames == 1500)


def test_a_full_window_and_one_of_unknown_length_are_dense(model: Whisper, mel: Tensor) -> None:
    dense, full, unknown = (
        model.encode(mel[3:], [profile], frames)[0]
        for profile, frames in ((Profile("dense"), [1500]), (SHORT, [1500]), (SHORT, None))
    )
    assert torch.equal(full.states_TD, dense.states_TD)
    assert torch.equal(unknown.states_TD, dense.states_TD)
    assert not full.pooled


@torch.inference_mode()
def test_what_reaches_less_far_is_not_taken_for_dense(model: Whisper, mel: Tensor) -> None:
    """Also where no frame goes early."""
    near, late = Profile("near", reach=20), Profile("late", reach=20, late=0.5, pool="mean")
    encoded = model.encode(mel[:1].expand(3, -1, -1), [near, late, Profile("dense")], [1500] * 3)
    weights = model.checkpoint.weights.encoder
    for profile, one in zip((near, late), encoded, strict=False):
        states_BTD, _ = encoder.encode(weights, mel[:1], profile)
        assert torch.equal(one.states_TD, states_BTD[0])
    assert not torch.allclose(encoded[0].states_TD, encoded[2].states_TD, atol=1e-3)


def test_one_of_many_says_what_it_says_alone(model: Whisper, mel: Tensor) -> None:
    """Beside dense and short windows of its own and of another length."""
    profiles = [SHORT, BOTH, SHORT, Profile("dense")]
    together = texts(model, model.encode(mel, profiles, FRAMES))
    alone = [
        texts(model, model.encode(mel[n : n + 1], [profiles[n]], [FRAMES[n]]))[0] for n in range(4)
    ]
    assert together == alone


def test_a_window_of_which_the_most_alike_are_joined_is_the_same_alone(
    model: Whisper, mel: Tensor
) -> None:
    """A full one keeps its share of all frames, a short one of its recording's."""
    profiles = [ALIKE, PADDED, PADDED, ALIKE]
    encoded = model.encode(mel, profiles, FRAMES)
    assert [len(one.states_TD) for one in encoded] == [750, 225, 160, 750]
    for window, one in enumerate(encoded):
        assert one.pooled
        assert bool((one.positions_T.diff() > 0).all())
        assert one.log_weights_T is not None
        sizes = one.log_weights_T.exp()
        counted = torch.diff(one.positions_T, append=torch.tensor([1500]))
        assert_close(sizes / sizes[0], counted / counted[0])
        alone = slice(window, window + 1)
        single = model.encode(mel[alone], profiles[alone], FRAMES[alone])[0]
        assert torch.equal(single.states_TD, one.states_TD)
    together = texts(model, encoded)
    assert together == [texts(model, [one])[0] for one in encoded]


@torch.inference_mode()
def test_cached_steps_weigh_states_as_the_whole_sequence_does(model: Whisper, mel: Tensor) -> None:
    weights = model.checkpoint.weights.decoder
    first, second = (model.encode(mel[n : n + 1], [SHORT], FRAMES[n : n + 1])[0] for n in (0, 2))
    cache = empty_cache(weights)
    states = torch.stack([first.states_TD, second.states_TD])
    assert first.log_weights_T is not None
    assert second.log_weights_T is not None
    bias = torch.stack([first.log_weights_T, second.log_weights_T])
    decoder.join(weights, cache, states, bias)
    cache.fork(0)
    tokens_BN = torch.randint(0, 50_000, (3, 5), generator=torch.Generator().manual_seed(1))
    steps = [decoder.step(weights, tokens_BN[:, n : n + 1], cache) for n in range(5)]
    together = torch.cat(steps, dim=1)
    for row, window in enumerate((first, second, first)):
        states_1TD, tokens_1N = window.states_TD[None], tokens_BN[row : row + 1]
        whole, _ = decoder.forward_watched(weights, tokens_1N, states_1TD, (), window.log_weights_T)
        assert_close(together[row], whole[0], atol=1e-4, rtol=0)
        unweighed = decoder.forward(weights, tokens_1N, states_1TD)
        assert not torch.allclose(unweighed, whole, atol=1e-2)


@torch.inference_mode()
def test_head_by_head_weighs_as_fused_attention_does(model: Whisper, mel: Tensor) -> None:
    plans = [plan_of(ALIKE, 1500, frames) for frames in FRAMES]
    weights = model.checkpoint.weights.encoder
    by_heads = replace(weights, attend=by_head(torch.float32))
    fused, heads = (encoder.encode_windows(some, mel, plans) for some in (weights, by_heads))
    for one, other in zip(heads, fused, strict=True):
        assert one.log_weights_T is not None
        assert_close(one.states_TD, other.states_TD, atol=1e-4, rtol=0)
