"""Which frames to keep: pure functions from scores to positions, and from states to fewer.

Early Attentive Sparsification (arXiv 2506.15912) scores a frame by the attention it receives;
the other scores here are the equal-k baselines that any claim must beat, and the mean of
neighbours needs none.
"""

from __future__ import annotations

import heapq
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from service.transfer import sent


def aggregate_heads(received_BHT: Tensor, aggregation: str) -> Tensor:
    """(B, H, T) attention received per head -> (B, T). `mean`, `max`, `min` or `median`."""
    match aggregation:
        case "mean":
            return received_BHT.mean(dim=1)
        case "max":
            return received_BHT.amax(dim=1)
        case "min":
            return received_BHT.amin(dim=1)
        case "median":
            return received_BHT.median(dim=1).values
    raise ValueError(f"unknown aggregation {aggregation!r}")


def num_kept(num_frames: int, sparsity: float) -> int:
    """`k = round((1 - s) * T)`, and at least one."""
    return max(1, round((1 - sparsity) * num_frames))


def keep_positions(scores_BT: Tensor, sparsity: float, within: int = 0) -> Tensor:
    """The `k = round((1 - s) * T)` highest-scored frames of each window, in time order.

    With `within`, frames compete in neighbourhoods of so many (the last may be short), and each
    keeps its share of the k: what does not divide is spread evenly. 0: all frames compete.
    Returns int64 (B, k), ascending. Of equal scores the earlier frame is kept, so the choice does
    not depend on the device or on the batch.
    """
    num_windows, num_frames = scores_BT.shape
    num = num_kept(num_frames, sparsity)
    width = min(within, num_frames) or num_frames
    num_near = -(-num_frames // width)
    # Padding comes last and is lowest: no share is larger than the frames that are there.
    padded = F.pad(scores_BT, (0, num_near * width - num_frames), value=-math.inf)
    near_BNW = padded.view(num_windows, num_near, width)
    order = near_BNW.sort(dim=-1, descending=True, stable=True).indices
    edges = (torch.arange(num_near + 1) * width).clamp(max=num_frames) * num // num_frames
    stays = sent(torch.arange(width) < edges.diff()[:, None], order.device).expand_as(order)
    kept_BT = torch.zeros_like(stays).scatter(-1, order, stays).flatten(1)
    # Stable, so in time order; unlike nonzero() it does not wait for a device to say how many.
    in_time = kept_BT.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices
    return in_time[:, :num]


def even_positions(num_frames: int, num: int) -> Tensor:
    """`num` of `num_frames` positions at even distances from 0 on: int64 (num,)."""
    return torch.arange(num) * num_frames // num


def alike_positions(keys_TD: Tensor, num: int) -> Tensor:
    """The first frame of each of `num` groups of neighbours that are most alike: int64 (num,).

    Again and again the two neighbouring groups become one whose variance grows least by it
    (Ward's method); a group has at most twice as many frames as it would in equal ones. Of equal
    growths the earlier is taken. Source: A-ToMe (arXiv 2306.16009) merges neighbours by likeness
    of keys, in pairs and by cosine.
    """
    num_frames = len(keys_TD)
    most = min(-(-2 * num_frames // num), num_frames)
    variance = _variances(keys_TD, most)
    sizes = [1] * num_frames  # of the group that begins at a frame; 0: none does
    begins = list(range(num_frames))  # of the group that ends at a frame

    def growth(first: int, left: int, right: int) -> float:
        whole, second = variance[left + right - 1][first], first + left
        return whole - variance[left - 1][first] - variance[right - 1][second]

    # Growth, first frame, and the sizes of both groups.
    near = [(growth(first, 1, 1), first, 1, 1) for first in range(num_frames - 1)]
    heapq.heapify(near)
    for _ in range(num_frames - num):
        while True:
            _, first, left, right = heapq.heappop(near)
            if sizes[first] == left and sizes[first + left] == right:
                break
        size = left + right
        sizes[first], sizes[first + left], begins[first + size - 1] = size, 0, first
        after, before = first + size, begins[first - 1] if first else None
        if after < num_frames and size + sizes[after] <= most:
            heapq.heappush(near, (growth(first, size, sizes[after]), first, size, sizes[after]))
        if before is not None and sizes[before] + size <= most:
            left = sizes[before]
            heapq.heappush(near, (growth(before, left, size), before, left, size))
    return torch.tensor([frame for frame, size in enumerate(sizes) if size])


def _variances(x_TD: Tensor, most: int) -> list[list[float]]:
    """For 1 to `most` frames in a row from each frame on: the sum of their squared distances to
    their mean. What reaches past the end is not meant."""
    num_frames = len(x_TD)
    x_TD = x_TD.float()
    products_T = [
        F.pad((x_TD[: num_frames - apart] * x_TD[apart:]).sum(-1), (0, apart))
        for apart in range(most)
    ]
    near = torch.stack(products_T).double().cpu()
    whole_T = squares_T = torch.zeros(num_frames, dtype=torch.float64)
    found: list[list[float]] = []
    for size in range(1, most + 1):
        # The frame that comes to those before it: its square, and twice its products with them.
        last = size - 1
        squares_T = squares_T + _shifted(near[0], last)
        whole_T = whole_T + _shifted(near[0], last)
        for apart in range(1, size):
            whole_T = whole_T + 2 * _shifted(near[apart], last - apart)
        found.append((squares_T - whole_T / size).tolist())
    return found


def _shifted(x_T: Tensor, by: int) -> Tensor:
    return F.pad(x_T[by:], (0, by))


def mean_of_neighbours(states_BTD: Tensor, first_k: Tensor) -> Tensor:
    """(B, T, D) -> (B, k, D): the mean of the frames from each of `first_k` to the next.

    Summed in float32. A group of one is that frame, bit for bit.
    """
    num_frames = states_BTD.shape[1]
    sizes_k = torch.diff(first_k, append=first_k.new_tensor([num_frames]))
    near_G = torch.arange(int(sizes_k.max()))
    device = states_BTD.device
    index_kG = sent((first_k[:, None] + near_G).clamp(max=num_frames - 1), device)
    outside_kG1 = sent((near_G >= sizes_k[:, None])[..., None], device)
    near_BkGD = states_BTD[:, index_kG].float().masked_fill(outside_kG1, 0)
    return (near_BkGD.sum(2) / sent(sizes_k[:, None], device)).to(states_BTD.dtype)


def baseline_scores(selection: str, mel_BFT: Tensor, num_frames: int, sparsity: float) -> Tensor:
    """Scores (B, T) that make `keep_positions` choose a baseline's frames.

    `stride`: evenly spaced; `energy`: mean log-mel of the frame; `random`: the same draw for
    every window, so that a window's result does not depend on its batch.
    """
    num_windows, device = mel_BFT.shape[0], mel_BFT.device
    if selection == "energy":
        return mel_BFT.float().mean(dim=1).view(num_windows, num_frames, -1).mean(dim=-1)
    if selection == "stride":
        k = num_kept(num_frames, sparsity)
        scores_T = torch.zeros(num_frames)
        scores_T[even_positions(num_frames, k)] = 1
    elif selection == "random":
        scores_T = torch.rand(num_frames, generator=torch.Generator().manual_seed(0))
    else:
        raise ValueError(f"unknown selection {selection!r}")
    return sent(scores_T, device).expand(num_windows, -1)
