from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from service.audio.mel import log_mel
from service.model.padding import Layout, lay_out, merge, place, plain, thin, thin_alike
from service.types import SAMPLE_RATE

FRAMES, WIDTH, MELS = 1500, 8, 80


@given(audio=st.integers(0, FRAMES), neighbours=st.integers(2, 40))
def test_every_frame_is_stood_for_once(audio: int, neighbours: int) -> None:
    layout = lay_out(audio, FRAMES, neighbours)
    if layout is None:
        assert audio + 25 > FRAMES - 50 - neighbours
        return
    near = layout.num_near
    assert 25 <= near - audio < 75
    assert layout.positions_T[:near].tolist() == list(range(near))
    assert layout.sizes_T[:near].tolist() == [1] * near
    ends = [*layout.positions_T[1:].tolist(), FRAMES]
    stood_for = [end - at for at, end in zip(layout.positions_T.tolist(), ends, strict=True)]
    assert stood_for == layout.sizes_T.tolist()
    assert set(stood_for[near:-1]) <= {neighbours}
    assert 1 <= stood_for[-1] <= neighbours


@pytest.mark.parametrize(
    ("audio", "near"), [(0, 50), (25, 50), (26, 100), (1425, 1450), (1426, None), (1500, None)]
)
def test_recordings_of_one_second_keep_as_many_frames(audio: int, near: int | None) -> None:
    layout = lay_out(audio, FRAMES, 8)
    assert (layout and layout.num_near) == near


def test_a_profile_that_leaves_the_padding_lays_out_nothing() -> None:
    assert lay_out(100, FRAMES, 0) is None


def stem(mel_BFT: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    """Whisper's two convolutions, (B, T, D)."""
    x = F.gelu(F.conv1d(mel_BFT, weights[0], padding=1))
    return F.gelu(F.conv1d(x, weights[1], stride=2, padding=1)).transpose(1, 2)


def test_the_means_are_those_of_the_whole_window() -> None:
    """But for the last, in which the window's very last frame is: there convolutions end."""
    random = torch.Generator().manual_seed(0)
    weights = (
        torch.randn(WIDTH, MELS, 3, generator=random),
        torch.randn(WIDTH, WIDTH, 3, generator=random),
    )
    positions_TD = torch.randn(FRAMES, WIDTH, generator=random)
    samples = torch.randn(2 * SAMPLE_RATE + 777, generator=random).numpy()
    audio = len(samples) * FRAMES // (30 * SAMPLE_RATE)
    mel = log_mel([samples], MELS)
    layout = lay_out(audio, FRAMES, 8)
    assert layout is not None
    whole = stem(mel, weights)[0] + positions_TD
    ends = [*layout.positions_T[1:].tolist(), FRAMES]
    expected = torch.stack(
        [whole[a:b].mean(0) for a, b in zip(layout.positions_T.tolist(), ends, strict=True)]
    )
    states = place(stem(mel[..., : layout.mel_frames], weights), positions_TD, layout)
    assert states.shape == (1, len(expected), WIDTH)
    assert_close(states[0, :-1], expected[:-1], atol=1e-4, rtol=1e-5)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    mask = None if bias is None else bias.expand(len(query), -1)
    return F.scaled_dot_product_attention(query[None], key[None], value[None], mask)[0]


def test_a_mean_of_equal_frames_weighs_as_many() -> None:
    """Also after others were averaged: those are fewer for all of them alike."""
    random = torch.Generator().manual_seed(1)
    layout = lay_out(30, 111, 4)
    assert layout is not None
    near, num = layout.num_near, len(layout.positions_T)
    assert (near, num) == (100, 103)
    pairs = torch.randn(1, near // 2, WIDTH, generator=random).repeat_interleave(2, dim=1)
    padding = torch.randn(1, num - near, WIDTH, generator=random)
    states = torch.cat([pairs, padding], dim=1)
    whole = states[0].repeat_interleave(layout.sizes_T.long(), dim=0)
    query = torch.randn(5, WIDTH, generator=random)
    expected = attend(query, whole, whole)
    assert_close(attend(query, states[0], states[0], layout.log_weights(states)), expected)
    fewer, thinner = thin(states, layout, 0.5)
    assert_close(attend(query, fewer[0], fewer[0], thinner.log_weights(fewer)), expected)
    assert not torch.allclose(attend(query, fewer[0], fewer[0]), expected, atol=1e-2)


def test_frames_that_are_alike_become_one_that_weighs_as_many() -> None:
    """Attention to what is left is attention to all, where those joined are equal."""
    random = torch.Generator().manual_seed(3)
    sizes = torch.tensor([1, 4, 2, 1, 3, 1, 4, 4])
    frames = torch.randn(1, len(sizes), WIDTH, generator=random)
    whole = frames.repeat_interleave(sizes, dim=1)
    fewer, layout = thin_alike(whole, plain(20), 0.6, whole[0])
    assert layout.num_near == 8
    assert layout.sizes_T.tolist() == sizes.tolist()
    assert layout.positions_T.tolist() == [0, 1, 5, 7, 8, 11, 12, 16]
    assert_close(fewer, frames)
    query = torch.randn(5, WIDTH, generator=random)
    expected = attend(query, whole[0], whole[0])
    assert_close(attend(query, fewer[0], fewer[0], layout.log_weights(fewer)), expected)


def test_pairs_of_means_weigh_as_both() -> None:
    layout = lay_out(30, 117, 4)  # five means, the last of one frame
    assert layout is not None
    random = torch.Generator().manual_seed(2)
    near = torch.randn(1, 100, WIDTH, generator=random)
    far = torch.randn(1, 3, WIDTH, generator=random).repeat_interleave(2, dim=1)[:, :5]
    states = torch.cat([near, far], dim=1)
    fewer, merged = merge(states, layout)
    assert merged.num_near == 100
    assert merged.positions_T[99:].tolist() == [99, 100, 108, 116]
    assert merged.sizes_T[99:].tolist() == [1, 8, 8, 1]
    assert torch.equal(fewer[:, :100], near)
    query = torch.randn(5, WIDTH, generator=random)
    expected = attend(query, states[0], states[0], layout.log_weights(states))
    assert_close(attend(query, fewer[0], fewer[0], merged.log_weights(fewer)), expected)


def test_only_the_recording_is_thinned() -> None:
    layout = lay_out(30, 112, 4)
    assert layout is not None
    states = torch.arange(103.0).view(1, 103, 1)
    fewer, thinner = thin(states, layout, 2 / 3)
    assert thinner.num_near == 33
    assert fewer[0, :4, 0].tolist() == [1.0, 4.0, 7.0, 10.0]
    assert fewer[0, 33:, 0].tolist() == [100.0, 101.0, 102.0]
    assert thinner.positions_T[:4].tolist() == [0, 3, 6, 9]
    assert thinner.positions_T[33:].tolist() == [100, 104, 108]
    again, thinnest = thin(fewer, thinner, 0.5)
    assert len(again[0]) == len(thinnest.positions_T) == len(thinnest.sizes_T) == 16 + 3


def test_the_weights_are_relative_to_the_recordings_frames() -> None:
    layout = Layout(torch.tensor([0, 2, 4]), torch.tensor([2.0, 2.0, 8.0]), 2)
    weights = layout.log_weights(torch.zeros(1, dtype=torch.bfloat16))
    assert weights is not None
    assert weights.dtype == torch.bfloat16
    assert_close(weights.float(), torch.tensor([0, 0, math.log(4)]), atol=1e-2, rtol=0)
