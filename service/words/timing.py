"""Cross-attention of a decoder's alignment heads -> when each token was said.

Source: `timing.py` of openai-whisper (`find_alignment`): attention over the frames with sound,
normalised over tokens, smoothed over frames, averaged over heads, then dynamic time warping. What
is different here is the clock: the frames that a winnowed window kept stand at irregular places,
so the columns of the matrix are kept frames, and a path is read in their original positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

MEDIAN_WIDTH = 7

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """When each token begins and ends, in frames of the window before any were dropped."""

    starts: Floats
    ends: Floats


def token_times(
    attention_HNT: Tensor,
    positions_T: Tensor,
    rows: Sequence[int],
    *,
    pooled: bool = False,
) -> TokenTimes:
    """When the tokens were said that `rows` predict; the last row is what follows them all.

    `attention_HNT`: (heads, rows, kept frames), each row a distribution over frames;
    `positions_T`: those frames' original indices, ascending. The path crosses from one row to the
    next between two kept frames: half way from the end of the one to the beginning of the other
    is the boundary, so that what was dropped between them is shared. Where nothing was dropped
    this is the beginning of the next frame, which is openai-whisper's rule; and so it is with
    `pooled` frames, each of which lasts until the next one's position.
    """
    matrix_NT = contrast(attention_HNT)[list(rows)].double().cpu().numpy()
    path_rows, path_columns = warp(-matrix_NT)
    first = path_columns[np.flatnonzero(np.diff(path_rows, prepend=-1))]
    begins = positions_T.cpu().numpy().astype(np.float64)
    lasts = begins[1:] if pooled else begins[:-1] + 1
    crossings = np.concatenate([begins[:1], (lasts + begins[1:]) / 2])
    return TokenTimes(crossings[first[:-1]], crossings[first[1:]])


def contrast(attention_HNT: Tensor, width: int = MEDIAN_WIDTH) -> Tensor:
    """How much more than the other rows each row looks at a frame: (rows, frames).

    Normalised over rows, median over `width` kept frames, mean over heads. A frame that all rows
    look at alike says nothing, and is 0.
    """
    std, mean = torch.std_mean(attention_HNT.float(), dim=1, keepdim=True, correction=0)
    normal_HNT = ((attention_HNT - mean) / std).nan_to_num(0.0, 0.0, 0.0)
    return median_filter(normal_HNT, width).mean(dim=0)


def median_filter(x_HNT: Tensor, width: int) -> Tensor:
    """Median over `width` (odd) neighbours along the last dimension, reflected at its ends.

    By exchanges that leave the larger half of the neighbours behind: sorting each neighbourhood
    takes several times as long.
    """
    reach = width // 2
    num_frames = x_HNT.shape[-1]
    if num_frames <= reach:
        return x_HNT
    padded = F.pad(x_HNT, (reach, reach), mode="reflect")
    near = [padded[..., shift : shift + num_frames] for shift in range(width)]
    for last in range(width - 1, reach - 1, -1):
        for i in range(last):
            near[i], near[i + 1] = (
                torch.minimum(near[i], near[i + 1]),
                torch.maximum(near[i], near[i + 1]),
            )
    return near[reach]


def warp(cost_NT: Floats) -> tuple[Ints, Ints]:
    """Dynamic time warping: the cheapest monotonic path through a matrix, as rows and columns.

    The path runs from the first corner to the last in steps of one row, one column or both. A
    row's costs are `x + min(from above, from the left)`, which with the row's running sum taken
    off is a running minimum, so a row is a few vector operations.
    """
    num_rows, num_columns = cost_NT.shape
    total = np.full((num_rows + 1, num_columns + 1), np.inf)
    total[0, 0] = 0.0
    sums = np.cumsum(cost_NT, axis=1)
    for row in range(num_rows):
        above = np.minimum(total[row, 1:], total[row, :-1])
        entry = above + cost_NT[row] - sums[row]
        total[row + 1, 1:] = np.minimum.accumulate(entry) + sums[row]
    return _trace(total)


def _trace(total: Floats) -> tuple[Ints, Ints]:
    """The path back from the last corner; where ways cost the same, along the row."""
    diagonal, up, left = total[:-1, :-1], total[:-1, 1:], total[1:, :-1]
    steps = np.where(diagonal <= up, 0, 1)
    steps[left <= np.minimum(diagonal, up)] = 2
    row, column = diagonal.shape[0] - 1, diagonal.shape[1] - 1
    path = [(row, column)]
    while row or column:
        step = 2 if row == 0 else 1 if column == 0 else steps[row, column]
        row -= step != 2
        column -= step != 1
        path.append((row, column))
    ordered = np.array(path[::-1], np.int64)
    return ordered[:, 0], ordered[:, 1]
