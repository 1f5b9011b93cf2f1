"""Where in a recording the states stand that are left of its frames: pure functions.

What a model learnt of distances it learnt of frames, 20 ms each. So states that stay keep the
places of theirs, instead of moving up to 0, 1, 2, ...
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from service.model import sparsify


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """The states of windows of `num_frames` frames each.

    `positions_BT`: int64, ascending, the first frame of each state. `pooled`: a state is the mean
    of all from there to the next state's, the same for all windows; else of that frame alone, and
    the others went. `log_weights_T`: added to every query's logits, None for nothing.
    """

    positions_BT: Tensor
    num_frames: int
    pooled: bool = False
    log_weights_T: Tensor | None = None

    @property
    def is_whole(self) -> bool:
        return self.positions_BT.shape[1] == self.num_frames


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """How far states are from one another: `frames_R`, float32, each distance once, and which of
    them lies from each query to each key (`index_BTT`, B being 1 where windows share it); positive
    where the key comes first."""

    frames_R: Tensor
    index_BTT: Tensor


def whole(states_BTD: Tensor) -> Places:
    """A state for each frame."""
    num_windows, num_frames, _ = states_BTD.shape
    positions_T = torch.arange(num_frames, device=states_BTD.device)
    return Places(positions_T.expand(num_windows, -1), num_frames)


def twice_centres(places: Places) -> Tensor:
    """(B, T) int64: where the middle of what each state stands for lies, in half frames."""
    if not places.pooled:
        return 2 * places.positions_BT
    end = torch.full_like(places.positions_BT[:, :1], places.num_frames)
    sizes_BT = torch.diff(places.positions_BT, append=end)
    return 2 * places.positions_BT + sizes_BT - 1


def distances(places: Places) -> Distances:
    """Those between the centres of all pairs. What no pair has is not among them."""
    centres_BT = twice_centres(places)[: 1 if places.is_whole or places.pooled else None]
    most = 2 * (places.num_frames - 1)
    slots_BTT = centres_BT[:, :, None] - centres_BT[:, None, :] + most
    used = torch.zeros(2 * most + 1, dtype=torch.bool, device=centres_BT.device)
    used[slots_BTT.flatten()] = True
    frames_R = (used.nonzero()[:, 0] - most).float() / 2
    number = used.cumsum(0) - 1
    return Distances(frames_R, number[slots_BTT])


def owners(places: Places) -> Tensor:
    """(B, num_frames) int64: the state that stands for each frame.

    That of the mean it is part of; of frames that went, the nearest state: the earlier of two.
    """
    positions_BT = places.positions_BT
    if places.pooled:
        begins_BT = positions_BT.clone()
    else:
        midway = (positions_BT[:, :-1] + positions_BT[:, 1:]) // 2 + 1
        begins_BT = torch.cat([positions_BT[:, :1], midway], dim=1)
    begins_BT[:, 0] = 0
    frames = torch.arange(places.num_frames, device=positions_BT.device)
    frames_BT = frames.expand(len(positions_BT), -1).contiguous()
    return torch.searchsorted(begins_BT.contiguous(), frames_BT, right=True) - 1


def spread(states_BTD: Tensor, owners_BT: Tensor) -> Tensor:
    """(B, k, D) -> (B, num_frames, D): each frame is as the state that stands for it."""
    return states_BTD.gather(1, owners_BT[..., None].expand(-1, -1, states_BTD.shape[-1]))


def gather(frames_BTD: Tensor, places: Places, first_k: Tensor) -> Tensor:
    """Back: (B, num_frames, D) -> (B, k, D), means where states are, else single frames.

    `first_k`: the first window's positions, on the CPU.
    """
    if places.pooled:
        return sparsify.mean_of_neighbours(frames_BTD, first_k)
    index_BTD = places.positions_BT[..., None].expand(-1, -1, frames_BTD.shape[-1])
    return frames_BTD.gather(1, index_BTD)
