"""A CTC encoder made of Whisper's: its layers, modules between the halves of upper ones, a head.

With a kernel of more than 1 the module is the Conformer's convolution (arXiv 2005.08100, section
2.2, a layer norm in place of its batch norm); with a kernel of 1 the same without any neighbours,
so that two encoders differ in nothing else. D: width, K: kernel, L: labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from service.lab.reproduce.ctc.letters import NUM_LABELS
from service.model import sparsify
from service.model.encoder import attend, attend_scored, embed
from service.model.layers import mlp, norm
from service.model.operators.products import Dense
from service.model.weights import Conv, EncoderWeights, Norm

Tree = TypeVar("Tree")


@dataclass(frozen=True, slots=True)
class Module:
    """`into`: D to 2D, half of which gates the rest; `taps`: (D, 1, K), K odd; `out`: D to D."""

    norm: Norm
    into: Dense
    taps: Conv
    middle: Norm
    out: Dense


@dataclass(frozen=True, slots=True)
class CtcWeights:
    """A module for each of the uppermost layers of `encoder`, the first of them first; `head`: D to
    L."""

    encoder: EncoderWeights
    modules: tuple[Module, ...]
    head: Dense

    @property
    def lower(self) -> int:
        """Layers that have no module."""
        return len(self.encoder.layers) - len(self.modules)

    @property
    def kernel(self) -> int:
        return self.modules[0].taps.weight.shape[-1]


@dataclass(frozen=True, slots=True)
class Thinning:
    """What is dropped after layer number `layer` (1 on), and how.

    `selection`: attention, stride or mean, the mean of neighbours; `within` and `aggregation` of
    attention as a profile has them. `taps`: what the convolutions after it reach over, see
    `convolve`.
    """

    layer: int
    sparsity: float
    selection: str = "attention"
    within: int = 0
    aggregation: str = "mean"
    taps: str = "kept"


def new_model(encoder: EncoderWeights, kernel: int, upper: int, seed: int = 0) -> CtcWeights:
    """With modules in so many `upper` layers, which add nothing until they are trained: its states
    are those of Whisper's encoder.

    Apart from the taps, the same for every kernel. Raises ValueError for an even kernel, and for
    more layers than there are.
    """
    if not 1 <= upper <= len(encoder.layers):
        raise ValueError(f"modules for {upper} layers: use 1 to {len(encoder.layers)}")
    if kernel % 2 == 0:
        raise ValueError(f"a kernel of {kernel} has no middle: use an odd one")
    width = encoder.positions_TD.shape[1]
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def plain_norm() -> Norm:
        return Norm(torch.ones(width), torch.zeros(width))

    into = [drawn(2 * width, width) / math.sqrt(width) for _ in range(upper)]
    head = Dense(torch.zeros(NUM_LABELS, width), torch.zeros(NUM_LABELS))
    modules = tuple(
        Module(
            plain_norm(),
            Dense(weight, torch.zeros(2 * width)),
            Conv(drawn(width, 1, kernel) / math.sqrt(kernel), torch.zeros(width)),
            plain_norm(),
            Dense(torch.zeros(width, width), torch.zeros(width)),
        )
        for weight in into
    )
    return CtcWeights(encoder, modules, head)


def encode(
    weights: CtcWeights, mel_BFT: Tensor, thinning: Thinning | None = None
) -> tuple[Tensor, Tensor]:
    """Log-mel (B, mels, 2T) -> states (B, k, D) and their positions (B, k), int64."""
    encoder = weights.encoder
    return through_layers(weights, embed(encoder, mel_BFT), thinning)


def through_layers(
    weights: CtcWeights, states_BTD: Tensor, thinning: Thinning | None = None, done: int = 0
) -> tuple[Tensor, Tensor]:
    """States (B, T, D) that so many layers have been `done` with (0: as `embed` gives them) to what
    the head reads."""
    encoder, states = weights.encoder, states_BTD
    num_windows, num_frames, _ = states.shape
    positions = torch.arange(num_frames).expand(num_windows, -1)
    layer_to_thin = 0 if thinning is None or thinning.sparsity == 0 else thinning.layer
    for number, layer in enumerate(encoder.layers[done:], start=done + 1):
        scores = None
        if thinning and number == layer_to_thin and thinning.selection == "attention":
            states, scores = attend_scored(states, layer, encoder, thinning.aggregation)
        else:
            states = attend(states, layer, encoder)
        if number > weights.lower:
            taps = thinning.taps if thinning else "kept"
            module = weights.modules[number - weights.lower - 1]
            states = convolve(states, module, positions, num_frames, taps)
        states = mlp(states, layer.mlp)
        if thinning and number == layer_to_thin:
            states, positions = thin(states, scores, thinning)
    return norm(states, encoder.norm), positions


def through_lower(weights: CtcWeights, mel_BFT: Tensor) -> Tensor:
    """Log-mel (B, mels, 2T) -> states (B, T, D) after the layers that have no module."""
    states = embed(weights.encoder, mel_BFT)
    for number in range(1, weights.lower + 1):
        states = through_one(weights, number, states)
    return states


def through_one(weights: CtcWeights, number: int, states_BTD: Tensor) -> Tensor:
    """Layer `number` (1 on), with its module where it has one, of all frames."""
    layer = weights.encoder.layers[number - 1]
    states = attend(states_BTD, layer, weights.encoder)
    if number > weights.lower:
        module = weights.modules[number - weights.lower - 1]
        positions = torch.arange(states.shape[1]).expand(len(states), -1)
        states = convolve(states, module, positions, states.shape[1])
    return mlp(states, layer.mlp)


def thin(states_BTD: Tensor, scores_BT: Tensor | None, thinning: Thinning) -> tuple[Tensor, Tensor]:
    """(B, T, D) -> what is kept (B, k, D), and its positions (B, k): of a mean, of its first."""
    num_windows, num_frames, width = states_BTD.shape
    if scores_BT is not None:
        positions = sparsify.keep_positions(scores_BT, thinning.sparsity, thinning.within)
        return states_BTD.gather(1, positions[..., None].expand(-1, -1, width)), positions
    num = sparsify.num_kept(num_frames, thinning.sparsity)
    first_k = sparsify.even_positions(num_frames, num)
    positions = first_k.expand(num_windows, -1)
    if thinning.selection == "mean":
        return sparsify.mean_of_neighbours(states_BTD, first_k), positions
    return states_BTD[:, first_k], positions


def convolve(
    states_BkD: Tensor, module: Module, positions_Bk: Tensor, num_frames: int, taps: str = "kept"
) -> Tensor:
    """The residual module. What its taps reach over, of kept states at `positions_Bk`:

    `kept`: the states that were kept, as if nothing had been between them; `held`: all frames, each
    kept state standing until the next one; `apart`: the distances that they were trained at, with
    nothing between kept states, and each counted as often as there are frames to a kept one.
    """
    gated_BkD = F.glu(module.into(norm(states_BkD, module.norm)), dim=-1)
    if taps == "kept" or states_BkD.shape[1] == num_frames:
        mixed = _tapped(gated_BkD, module.taps)
    else:
        index = positions_Bk[..., None].expand_as(gated_BkD)
        on_clock = _on_clock(gated_BkD, positions_Bk, num_frames, taps)
        mixed = _tapped(on_clock, module.taps).gather(1, index)
    return states_BkD + module.out(F.silu(norm(mixed, module.middle)))


def _on_clock(x_BkD: Tensor, positions_Bk: Tensor, num_frames: int, taps: str) -> Tensor:
    """Kept values at frames of the original clock: (B, T, D)."""
    num_windows, num_kept, width = x_BkD.shape
    if taps == "held":
        return x_BkD.gather(1, holders(positions_Bk, num_frames)[..., None].expand(-1, -1, width))
    if taps != "apart":
        raise ValueError(f"unknown taps {taps!r}: use kept, held or apart")
    index = positions_Bk[..., None].expand_as(x_BkD)
    frames_BTD = x_BkD.new_zeros(num_windows, num_frames, width)
    return frames_BTD.scatter(1, index, x_BkD * (num_frames / num_kept))


def holders(positions_Bk: Tensor, num_frames: int) -> Tensor:
    """Which kept state stands for each frame: the last one at or before it, and before the first
    of them the first. int64 (B, T)."""
    frames_BT = torch.arange(num_frames).expand(len(positions_Bk), -1).contiguous()
    return (torch.searchsorted(positions_Bk.contiguous(), frames_BT, right=True) - 1).clamp_min(0)


def _tapped(x_BTD: Tensor, taps: Conv) -> Tensor:
    kernel, width = taps.weight.shape[-1], x_BTD.shape[-1]
    mixed_BDT = F.conv1d(
        x_BTD.transpose(1, 2), taps.weight, taps.bias, padding=kernel // 2, groups=width
    )
    return mixed_BDT.transpose(1, 2)


def log_probabilities(weights: CtcWeights, states_BTD: Tensor) -> Tensor:
    """(B, T, D) -> (B, T, L), float32."""
    return weights.head(states_BTD).float().log_softmax(-1)


def mapped(tree: Tree, change: Callable[[str, Tensor], Tensor], at: str = "") -> Tree:
    """The same tree of dataclasses and tuples, each tensor changed; `change` is told where it is,
    as in `.modules.0.taps.weight`."""
    made: Any = tree
    if isinstance(tree, Tensor):
        made = change(at, tree)
    elif isinstance(tree, tuple):
        made = tuple(mapped(part, change, f"{at}.{number}") for number, part in enumerate(tree))
    elif is_dataclass(tree) and not isinstance(tree, type):
        parts = {one.name: getattr(tree, one.name) for one in fields(tree)}
        made = type(tree)(
            **{name: mapped(part, change, f"{at}.{name}") for name, part in parts.items()}
        )
    found: Tree = made
    return found


def named_tensors(tree: object) -> dict[str, Tensor]:
    """Every tensor of a tree by where it is."""
    found: dict[str, Tensor] = {}

    def note(at: str, tensor: Tensor) -> Tensor:
        found[at] = tensor
        return tensor

    mapped(tree, note)
    return found
