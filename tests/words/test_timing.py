"""Warping and smoothing against openai-whisper's, and the clock of frames that were kept."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import whisper.timing
from torch.testing import assert_close

from service.words.timing import contrast, median_filter, token_times, warp


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


@pytest.mark.parametrize("width", [2, 3])
def test_a_frame_that_stands_for_several_lasts_until_the_next(width: int) -> None:
    attention = looks((0, 20), (20, 50), (50, 60), num_frames=60)
    times = token_times(attention, width * torch.arange(60), range(3), pooled=True)
    assert (times.starts.tolist(), times.ends.tolist()) == (
        [0, 20 * width],
        [20 * width, 50 * width],
    )


POOLED = {"pooled": True}


@pytest.mark.parametrize(
    ("positions", "how", "within"),
    [
        (torch.arange(750) * 2, POOLED, 2),
        (torch.arange(900) * 1500 // 900, POOLED, 2),
        (torch.arange(500) * 3, POOLED, 3),
        (torch.arange(250) * 6, POOLED, 6),
        (torch.arange(750) * 2 + torch.arange(750) % 2, {}, 2),
        (torch.arange(500) * 3, {}, 3),
    ],
    ids=["pairs", "ones-and-twos", "threes", "threes-of-pairs", "one-of-each-pair", "every-third"],
)
def test_the_clock_of_a_whole_window_does_not_drift(
    positions: torch.Tensor, how: dict[str, bool], within: int
) -> None:
    edges = [0, *range(31, 1480, 47), 1500]  # where words begin: rarely where a frame does
    ends = torch.cat([positions[1:], torch.tensor([1500])]) if how else positions + 1
    attention = torch.full((1, len(edges) - 1, len(positions)), 1e-3)
    for row, (begin, end) in enumerate(pairwise(edges)):
        heard = ends.clamp(max=end) - positions.clamp(min=begin)
        attention[0, row] += heard.clamp(min=0) / (ends - positions)
    attention /= attention.sum(-1, keepdim=True)
    times = token_times(attention, positions, range(len(edges) - 1), **how)
    assert np.abs(times.starts - np.array(edges[:-2])).max() <= within


def test_fewer_frames_than_tokens() -> None:
    attention = looks(*[(0, 2)] * 6, num_frames=2)
    times = token_times(attention, torch.tensor([3, 8]), range(6))
    assert len(times.starts) == len(times.ends) == 5
    assert 3 <= times.starts.min() <= times.ends.max() <= 9
