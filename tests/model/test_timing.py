"""Warping and smoothing against openai-whisper's, and the clock of frames that were kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import whisper.timing
from torch.testing import assert_close

from service.model.timing import contrast, median_filter, token_times, warp


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 7), (12, 5), (40, 301)])
def test_the_path_is_that_of_openai_whisper(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    for _ in range(10):
        cost = rng.standard_normal(shape)
        assert np.array_equal(warp(cost), whisper.timing.dtw_cpu(cost))


def test_no_path_is_cheaper_even_where_many_cost_the_same() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        cost = rng.integers(-2, 3, rng.integers(1, 9, 2)).astype(np.float64)
        best = np.full(np.add(cost.shape, 1), np.inf)
        best[0, 0] = 0
        for i, j in np.ndindex(cost.shape):
            best[i + 1, j + 1] = cost[i, j] + min(best[i, j], best[i, j + 1], best[i + 1, j])
        path = warp(cost)
        assert cost[path].sum() == best[-1, -1]
        assert (path[0][0], path[1][0]) == (0, 0)
        assert all(step in {(0, 1), (1, 0), (1, 1)} for step in zip(*np.diff(path), strict=True))


@pytest.mark.parametrize("num_frames", [1, 3, 4, 8, 100])
@pytest.mark.parametrize("width", [1, 3, 7])
def test_the_median_is_that_of_openai_whisper(width: int, num_frames: int) -> None:
    source = torch.Generator().manual_seed(width)
    x = torch.randn(2, 5, num_frames, generator=source)
    assert_close(median_filter(x, width), whisper.timing.median_filter(x, width), atol=0, rtol=0)


def test_a_frame_that_all_rows_look_at_alike_says_nothing() -> None:
    attention = torch.rand(1, 4, 9, generator=torch.Generator().manual_seed(0))
    attention[:, :, 4] = 0.25
    matrix = contrast(attention, width=1)
    assert matrix[:, 4].tolist() == [0.0] * 4
    assert bool(matrix[:, :4].abs().min() > 0)


def looks(*stretches: tuple[int, int], num_frames: int) -> torch.Tensor:
    """One head whose rows look at columns `[first, end)`, and faintly everywhere."""
    attention = torch.full((1, len(stretches), num_frames), 1e-3)
    for row, (first, end) in enumerate(stretches):
        attention[0, row, first:end] = 1.0
    return attention / attention.sum(-1, keepdim=True)


def test_dense_times_are_the_first_frames_of_each_row() -> None:
    attention = looks((0, 20), (20, 50), (50, 60), num_frames=60)
    times = token_times(attention, torch.arange(60), range(3))
    assert (times.starts.tolist(), times.ends.tolist()) == ([0, 20], [20, 50])


def test_times_are_of_original_positions_and_not_of_the_compressed_clock() -> None:
    # Kept: 0-9, 100-109, 160-169 of a window. The boundary shares what was dropped between.
    positions = torch.cat([torch.arange(start, start + 10) for start in (0, 100, 160)])
    attention = looks((0, 10), (10, 20), (20, 30), num_frames=30)
    times = token_times(attention, positions, range(3))
    assert times.starts.tolist() == [0, (10 + 100) / 2]
    assert times.ends.tolist() == [(10 + 100) / 2, (110 + 160) / 2]


def test_a_pause_belongs_to_no_token_where_pauses_count() -> None:
    # The second row is no word's and looks at the pause; the word after it glances there.
    attention = looks((0, 10), (10, 30), (30, 45), (45, 60), num_frames=60)
    attention[0, 2, 10:30] = 0.01
    plain = token_times(attention, torch.arange(60), [0, 2, 3])
    apart = token_times(attention, torch.arange(60), [0, 2, 3], pauses=True)
    assert (plain.starts[1], apart.starts[1]) == (10, 30)
    assert (apart.ends == plain.ends).all()


def test_fewer_frames_than_tokens() -> None:
    attention = looks(*[(0, 2)] * 6, num_frames=2)
    times = token_times(attention, torch.tensor([3, 8]), range(6))
    assert len(times.starts) == len(times.ends) == 5
    assert 3 <= times.starts.min() <= times.ends.max() <= 9
