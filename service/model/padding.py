"""The padding behind a short recording: many frames become one, which then weighs as many; and so
do frames of the recording that are alike.

Whisper reads 30 s, and needs its padding: cut off, the text breaks. But before the first layer
frames of silence differ in their positions only, so the mean of a few neighbours stands for all
of them, if attention counts it as often: `log n` added to its logits is exact for `n` equal keys
and values. After the first layer two of these means are near enough to become one. Source:
proportional attention of Token Merging (arXiv 2210.09461, equation 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from service.model import sparsify
from service.transfer import sent

# Frames, 20 ms each. Half a second of padding to one and a half stays as it is, so that recordings
# of a like length keep as many frames, and are decoded together.
LEAST_PADDING, STEP = 25, 50
# Mel frames that the two convolutions read past those of the frames that are wanted.
_REACH = 2
LAYOUTS = 128  # that are remembered: windows of one are encoded together


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What the states of one window stand for: first those of the recording, then of its padding.

    `positions_T`: int64, the first frame of each, ascending; `sizes_T`: float32, how many frames
    each counts as; `num_near`: how many states there are before the padding's means.
    """

    positions_T: Tensor
    sizes_T: Tensor
    num_near: int

    @property
    def mel_frames(self) -> int:
        """How many mel frames the stem has to read, before anything is thinned."""
        return 2 * self.num_near + _REACH

    @property
    def is_even(self) -> bool:
        """Whether all count alike."""
        return bool((self.sizes_T == self.sizes_T[0]).all())

    def log_weights(self, like: Tensor) -> Tensor:
        """(T,), added to every query's logits: 0 for the recording's first. Of `like`'s type and
        device."""
        return sent((self.sizes_T / self.sizes_T[0]).log().to(like.dtype), like.device)


@lru_cache(LAYOUTS)
def plain(num_frames: int) -> Layout:
    """A state for each frame, and no padding apart."""
    with torch.inference_mode(False):  # it is remembered, for whoever trains too
        return Layout(torch.arange(num_frames), torch.ones(num_frames), num_frames)


def lay_out(audio_frames: int, num_frames: int, neighbours: int) -> Layout | None:
    """How a window is laid out whose first `audio_frames` of `num_frames` hold a recording.

    `neighbours` frames of padding become one; the last mean may have fewer. None where there is
    nothing to gain: the window has to be encoded as it is.
    """
    num_near = -(-(audio_frames + LEAST_PADDING) // STEP) * STEP
    if neighbours < 2 or num_near + neighbours > num_frames:
        return None
    return _padded(num_near, num_frames, neighbours)


@lru_cache(LAYOUTS)
def _padded(num_near: int, num_frames: int, neighbours: int) -> Layout:
    with torch.inference_mode(False):
        first = torch.arange(num_near, num_frames, neighbours)
        sizes = torch.diff(first, append=first.new_tensor([num_frames]))
        positions_T = torch.cat([torch.arange(num_near), first])
        return Layout(positions_T, torch.cat([torch.ones(num_near), sizes.float()]), num_near)


def place(stem_BTD: Tensor, positions_TD: Tensor, layout: Layout) -> Tensor:
    """The stem's frames, of the layout's `mel_frames`, to positioned states (B, k, D).

    `positions_TD`: the checkpoint's positional embedding. The last frame before the means is
    padding, and every frame behind it is the same (but for the window's very last, whose
    convolutions end in zeros); so the means are of their positions alone.
    """
    num_near = layout.num_near
    near_BTD = stem_BTD[:, :num_near]
    if num_near == len(layout.positions_T):
        return near_BTD + positions_TD[:num_near]
    means_1TD = sparsify.mean_of_neighbours(
        positions_TD[None, num_near:], layout.positions_T[num_near:] - num_near
    )
    return torch.cat([near_BTD + positions_TD[:num_near], near_BTD[:, -1:] + means_1TD], dim=1)


def merge(states_BTD: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
    """Averages pairs of the padding's means, which count as both: after the first layer.

    Where their number is odd, the last stays alone; it may stand for fewer frames than the others.
    """
    near, num_far = layout.num_near, len(layout.positions_T) - layout.num_near
    if num_far == 0:
        return states_BTD, layout
    first = torch.arange(0, num_far, 2)
    means = sparsify.mean_of_neighbours(states_BTD[:, near:], first)
    both = torch.zeros(len(first)).index_add(0, torch.arange(num_far) // 2, layout.sizes_T[near:])
    sizes_T = torch.cat([layout.sizes_T[:near], both])
    positions_T = torch.cat([layout.positions_T[:near], layout.positions_T[near:][first]])
    return torch.cat([states_BTD[:, :near], means], dim=1), Layout(positions_T, sizes_T, near)


def thin(states_BTD: Tensor, layout: Layout, share: float) -> tuple[Tensor, Layout]:
    """Averages neighbours among the recording's states, so that `share` of those go.

    The padding's means stay, and count against the others as before.
    """
    num_near = layout.num_near
    num = sparsify.num_kept(num_near, share)
    first = sparsify.even_positions(num_near, num)
    return _joined(states_BTD, layout, first, layout.sizes_T[first] * (num_near / num))


def thin_alike(
    states_1TD: Tensor, layout: Layout, share: float, keys_TD: Tensor
) -> tuple[Tensor, Layout]:
    """Averages those neighbours among the recording's frames whose `keys_TD` are most alike, so
    that `share` of them go. A mean counts as all of its frames."""
    num = sparsify.num_kept(layout.num_near, share)
    first = sparsify.alike_positions(keys_TD[: layout.num_near], num)
    sizes = torch.diff(first, append=first.new_tensor([layout.num_near]))
    return _joined(states_1TD, layout, first, sizes.float())


def _joined(
    states_BTD: Tensor, layout: Layout, first_k: Tensor, sizes_k: Tensor
) -> tuple[Tensor, Layout]:
    """The means of the recording's states from each of `first_k` to the next, and what they
    count as; then the padding's."""
    num_near = layout.num_near
    means = sparsify.mean_of_neighbours(states_BTD[:, :num_near], first_k)
    sizes_T = torch.cat([sizes_k, layout.sizes_T[num_near:]])
    positions_T = torch.cat([layout.positions_T[first_k], layout.positions_T[num_near:]])
    states = torch.cat([means, states_BTD[:, num_near:]], dim=1)
    return states, Layout(positions_T, sizes_T, len(first_k))
