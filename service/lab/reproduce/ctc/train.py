"""Trains a CTC encoder from Whisper's; goes on where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from service.audio.mel import log_mel
from service.errors import ConfigError
from service.lab.packing import Item, to_float
from service.lab.reproduce.ctc.letters import BLANK, labels_of, spelled
from service.lab.reproduce.ctc.model import (
    CtcWeights,
    log_probabilities,
    mapped,
    named_tensors,
    through_layers,
    through_lower,
)
from service.lab.search.state import digest
from service.types import SAMPLE_RATE

FRAME_SAMPLES = SAMPLE_RATE // 50  # 20 ms
SAVE_EVERY = 25  # steps


@dataclass(frozen=True, slots=True)
class Recipe:
    """`steps`: how many are taken in each stage, `batch`: of so many windows. `rate`: of what is
    new, `whisper_rate`: of Whisper's layers, both after a warm-up of a twentieth of the steps, and
    from there on falling to 0 in a line. What is below the first module stays as it was. In each
    window so many stretches, of at most so many frames, are masked (arXiv 1904.08779)."""

    steps: tuple[int, ...]
    batch: tuple[int, ...]
    rate: float = 1e-3
    whisper_rate: float = 2e-4
    decay: float = 1e-2
    masks: int = 2
    mask_frames: int = 20
    seed: int = 0

    @property
    def total(self) -> int:
        return sum(self.steps)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """States (T, D) below the first module, in float16, and the labels of what is said; where it is
    known, that of each frame (T,), which is learned instead."""

    states_TD: Tensor
    labels: Tensor
    labels_T: Tensor | None = None


def mel_of(item: Item, num_mels: int) -> Tensor:
    """(1, mels, 2T), at most 30 s, as long as the audio is: CTC needs no padding."""
    mel_1FT = log_mel([to_float(item.pcm)], num_mels)
    num_frames = min(-(-len(item.pcm) // FRAME_SAMPLES), mel_1FT.shape[-1] // 2)
    return mel_1FT[..., : 2 * num_frames]


@torch.no_grad()
def windows_of(
    weights: CtcWeights, items: Sequence[Item], num_mels: int, *, bfloat16: bool = False
) -> list[Window]:
    """Each item as it is learned from."""
    made = []
    for item in items:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            states_1TD = through_lower(weights, mel_of(item, num_mels))
        labels = torch.tensor(labels_of(spelled(item.text)))
        made.append(Window(states_1TD[0].half(), labels))
    return made


def train(
    start: CtcWeights,
    stages: Sequence[Sequence[Window]],
    recipe: Recipe,
    checkpoint: Path,
    said: Callable[[int, float], object],
    *,
    of: str = "",
    bfloat16: bool = False,
) -> CtcWeights:
    """The trained weights. `stages`: the windows of each stage of the recipe; `said` is told each
    step and its loss, in nats a letter. `of`: what tells this data from others.

    `checkpoint` holds all that the next step depends on; what is found there is gone on with.
    Raises ConfigError where it is of another recipe, other data or another model.
    """
    weights = mapped(start, lambda at, tensor: tensor.clone())
    tensors = _trained(weights)
    optimiser = torch.optim.AdamW(_groups(tensors, recipe), betas=(0.9, 0.98))
    key = _key(recipe, of, tensors)
    begun = _resumed(checkpoint, key, tensors, optimiser)
    weights = mapped(weights, lambda at, tensor: tensors.get(at, tensor))
    for step in range(begun, recipe.total):
        for group in optimiser.param_groups:
            group["lr"] = group["highest"] * _share(step, recipe.total)
        chosen = _chosen(stages, step, recipe)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        letters = sum(len(window.labels) for window in chosen)
        heard = [masked(window.states_TD, recipe, generator) for window in chosen]
        # One context and one way back for all: weights are made narrow once, not for each window.
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            losses = [
                _loss(weights, states_TD, window)
                for states_TD, window in zip(heard, chosen, strict=True)
            ]
        loss = torch.stack(losses).sum() / letters
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(tensors.values(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        said(step + 1, float(loss.detach()))
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == recipe.total:
            _save(checkpoint, key, step + 1, tensors, optimiser, last=step + 1 == recipe.total)
    return mapped(weights, lambda at, tensor: tensor.detach())


def steps_done(checkpoint: Path) -> int:
    """0 where there is none."""
    if not checkpoint.exists():
        return 0
    return int(torch.load(checkpoint, weights_only=True)["step"])


def _trained(weights: CtcWeights) -> dict[str, Tensor]:
    """What learns, by where it is."""
    lower = (f".encoder.layers.{number}." for number in range(weights.lower))
    below = (".encoder.conv", ".encoder.positions_TD", *lower)
    return {
        at: tensor.requires_grad_()
        for at, tensor in named_tensors(weights).items()
        if not at.startswith(below)
    }


def _groups(tensors: dict[str, Tensor], recipe: Recipe) -> list[dict[str, Any]]:
    """Matrices decay, vectors do not; Whisper's layers have a rate of their own."""
    groups = []
    for whisper, highest in ((True, recipe.whisper_rate), (False, recipe.rate)):
        for matrix, decay in ((True, recipe.decay), (False, 0.0)):
            some = [
                tensor
                for at, tensor in tensors.items()
                if at.startswith(".encoder.") == whisper and (tensor.dim() > 1) == matrix
            ]
            groups.append({"params": some, "highest": highest, "lr": 0.0, "weight_decay": decay})
    return groups


def _share(step: int, steps: int) -> float:
    """Of the highest rate: up to it in a twentieth of the steps, then down to 0."""
    warm = max(1, steps // 20)
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _chosen(stages: Sequence[Sequence[Window]], step: int, recipe: Recipe) -> list[Window]:
    """The windows of a step: each of a stage once before any comes again, in an order drawn for
    each round."""
    stage = 0
    while step >= recipe.steps[stage]:
        step -= recipe.steps[stage]
        stage += 1
    windows, batch = stages[stage], recipe.batch[stage]
    chosen = []
    for place in range(step * batch, (step + 1) * batch):
        turn, number = divmod(place, len(windows))
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + turn)
        order = torch.randperm(len(windows), generator=generator)
        chosen.append(windows[int(order[number])])
    return chosen


def masked(states_TD: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """The same in float32, with stretches at the mean of all, as long as is drawn."""
    states = states_TD.float()
    middle_D = states.mean(0)

    def draw(most: int) -> int:
        return int(torch.randint(most + 1, (1,), generator=generator))

    for _ in range(recipe.masks):
        long = draw(min(recipe.mask_frames, len(states)))
        first = draw(len(states) - long)
        states[first : first + long] = middle_D
    return states


def by_head(query: Tensor, key: Tensor, value: Tensor, bias_T: Tensor | None) -> Tensor:
    """Attention head by head, (B, H, T, K) each: of what can be learned through, the fastest on a
    CPU. Nothing is added to the logits."""
    if bias_T is not None:
        raise ValueError("nothing can be added to the logits here")
    scale = query.shape[-1] ** -0.5
    heads = ((query * scale).flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1))
    contexts = [
        (query_TK @ key_TK.T).softmax(-1, dtype=value_TK.dtype) @ value_TK
        for query_TK, key_TK, value_TK in zip(*heads, strict=True)
    ]
    return torch.stack(contexts).view(query.shape)


def _loss(weights: CtcWeights, states_TD: Tensor, window: Window) -> Tensor:
    """In nats, of all letters: by CTC, or as often as there are letters that of a frame."""
    learning = replace(weights, encoder=replace(weights.encoder, attend=by_head))
    states, _ = through_layers(learning, states_TD[None], done=weights.lower)
    logprobs_1TL = log_probabilities(weights, states)
    if window.labels_T is not None:
        return F.nll_loss(logprobs_1TL[0], window.labels_T) * len(window.labels)
    return F.ctc_loss(
        logprobs_1TL.transpose(0, 1),
        window.labels[None],
        torch.tensor([logprobs_1TL.shape[1]]),
        torch.tensor([len(window.labels)]),
        blank=BLANK,
        reduction="sum",
        zero_infinity=True,  # more letters than there are frames
    )


def _key(recipe: Recipe, of: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Of a training that has not begun."""
    start = digest(*tensors, *(tensor.detach().numpy().tobytes() for tensor in tensors.values()))
    return {"recipe": asdict(recipe), "of": of, "start": start}


def _save(
    checkpoint: Path,
    key: dict[str, Any],
    step: int,
    tensors: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    *,
    last: bool,
) -> None:
    """Whole or not at all. The last one without what only a next step needs."""
    held = {
        **key,
        "step": step,
        "weights": {at: tensor.detach() for at, tensor in tensors.items()},
        "optimiser": None if last else optimiser.state_dict(),
    }
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    beside = checkpoint.with_suffix(f".{os.getpid()}.tmp")
    torch.save(held, beside)
    beside.replace(checkpoint)


def _resumed(
    checkpoint: Path,
    key: dict[str, Any],
    tensors: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> int:
    """Puts back what a checkpoint holds; how many steps were done."""
    if not checkpoint.exists():
        return 0
    held = torch.load(checkpoint, weights_only=True)
    if {name: held.get(name) for name in key} != key:
        raise ConfigError(
            f"{checkpoint.name} is of other steps, recordings or another model: use another folder"
        )
    with torch.no_grad():
        for at, tensor in tensors.items():
            tensor.copy_(held["weights"][at])
    if held["optimiser"] is not None:
        optimiser.load_state_dict(held["optimiser"])
    return int(held["step"])
