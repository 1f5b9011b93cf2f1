"""CTC's collapse of kept frames, which knows where on the clock they were."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from service.lab.reproduce.ctc.letters import BLANK


def collapse(
    labels: Sequence[int], positions: Sequence[int], apart: int = 0
) -> tuple[list[int], list[int]]:
    """The likeliest labels of kept frames to what is said: one label for each run of equal ones,
    without blanks, and the position where each run begins.

    `apart`: from so many frames on between two kept ones a blank is assumed there, so that the
    same label on either side is said twice; 0: never, as if nothing had been between them.
    """
    said, begins = [], []
    before, last = BLANK, 0
    for label, position in zip(labels, positions, strict=True):
        if apart and position - last >= apart:
            before = BLANK
        if label not in (BLANK, before):
            said.append(label)
            begins.append(position)
        before, last = label, position
    return said, begins


def interpolated(logprobs_kL: Tensor, positions_k: Tensor, num_frames: int) -> Tensor:
    """Log-probabilities (k, L) to those of all frames (T, L), up to a constant of each frame: in a
    line from a kept frame to the next, and beyond the outermost as there.

    Where the same label is likeliest on both sides, it is likeliest all the way: no blank can come
    between.
    """
    frames_T = torch.arange(num_frames)
    right_T = torch.searchsorted(positions_k.contiguous(), frames_T).clamp(1, len(positions_k) - 1)
    first_T, next_T = positions_k[right_T - 1], positions_k[right_T]
    share_T1 = ((frames_T - first_T) / (next_T - first_T)).clamp(0, 1)[:, None]
    return torch.lerp(logprobs_kL[right_T - 1], logprobs_kL[right_T], share_T1)
