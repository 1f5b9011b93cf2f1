"""Trains a small Whisper from nothing: hybrid CTC/attention, exact resume, averaged weights."""

from __future__ import annotations

import csv
import itertools
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from service.lab.dataset import Recipe, TrainingBatch
from service.lab.initial import Params, new_params
from service.lab.targets import FRAME_S, IGNORE
from service.lab.vocabulary import TIMESTAMPS
from service.model import decoder, encoder
from service.model.weights import Dims, Weights, from_state_dict
from service.profiles import BUILT_IN

ALIGNMENT_HEAD = 0  # of every decoder layer


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast.

    `first_step`: what a run counts from that goes on from another run's averaged parameters.
    """

    num_steps: int
    first_step: int = 0
    peak_rate: float = 1e-3
    warm_up: int = 200
    ctc_weight: float = 0.4
    alignment_weight: float = 0.3
    heed_weight: float = 0.2
    timestamp_weight: float = 0.5
    average: float = 0.998
    save_every: int = 250

    def rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to 2%."""
        warm = self.first_step + self.warm_up
        if step < warm:
            return self.peak_rate * (step - self.first_step + 1) / self.warm_up
        done = (step - warm) / max(1, self.num_steps - warm)
        return self.peak_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(slots=True)
class Run:
    """A training run between steps: all that a checkpoint has to hold."""

    step: int
    params: Params
    averaged: Params
    optimiser: torch.optim.AdamW


def loss_of(
    weights: Weights, params: Params, batch: TrainingBatch, schedule: Schedule
) -> tuple[Tensor, float, float]:
    """The weighted loss, and two of its parts: per character (CTC) and per token (attention)."""
    states, positions, scores = encoder.encode_watched(
        weights.encoder, batch.mel_BFT, batch.profile
    )
    ctc = ctc_loss(params, states, batch)
    loss = schedule.ctc_weight * ctc
    heads = [(layer, ALIGNMENT_HEAD) for layer in range(len(weights.decoder.layers))]
    logits_BNV, attention_BNT = decoder.forward_watched(
        weights.decoder, batch.inputs_BN, states, heads
    )
    attention = token_loss(logits_BNV, batch.targets_BN, schedule.timestamp_weight)
    alignment = sum(misalignment(each, batch.spans_BN2, positions) for each in attention_BNT)
    loss = loss + (1 - schedule.ctc_weight) * attention
    loss = loss + schedule.alignment_weight * alignment / len(heads)
    if scores is not None and batch.profile.selection == "attention":
        loss = loss + schedule.heed_weight * unheeded(scores, batch.spans_BN2)
    return loss, float(ctc.detach()), float(attention.detach())


def ctc_loss(params: Params, states_BTD: Tensor, batch: TrainingBatch) -> Tensor:
    """CTC loss per character; where hardly anything is said, not the more for that."""
    logits_BTV = F.linear(states_BTD, params["ctc.weight"], params["ctc.bias"]).float()
    frames_B = torch.full((len(states_BTD),), states_BTD.shape[1])
    whole = F.ctc_loss(
        logits_BTV.log_softmax(-1).transpose(0, 1),
        batch.characters,
        frames_B,
        batch.character_lengths_B,
        reduction="sum",
        zero_infinity=True,
    )
    return whole / max(int(batch.character_lengths_B.sum()), int(frames_B.sum()) // 100, 1)


def fit_ctc_head(recipe: Recipe, params: Params, dims: Dims, *, steps: int, workers: int) -> None:
    """Gives a checkpoint, which comes without one, a CTC head; the encoder stays as it is."""
    encoder_weights = from_state_dict(params, dims).encoder
    head = [params["ctc.weight"], params["ctc.bias"]]
    optimiser = torch.optim.AdamW(head, lr=5e-3)
    batches = tqdm(_batches(recipe, 0, workers), desc="CTC head", unit="step", total=steps)
    for batch in itertools.islice(batches, steps):
        with torch.no_grad():
            states_BTD, _ = encoder.encode(encoder_weights, batch.mel_BFT, BUILT_IN["dense"])
        loss = ctc_loss(params, states_BTD, batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        batches.set_postfix(ctc=f"{float(loss.detach()):.3f}")


def token_loss(logits_BNV: Tensor, targets_BN: Tensor, timestamp_weight: float) -> Tensor:
    """Mean cross-entropy of the targets, those that are timestamps weighted.

    Where a pause begins is blurred: a timestamp's neighbours within 0.08 s count as nearly right,
    so that each of 1,501 tokens learns from them, and times must not outshout words.
    """
    logprobs_BNV = logits_BNV.log_softmax(-1)
    known = targets_BN != IGNORE
    zero = logits_BNV.shape[-1] - len(TIMESTAMPS)
    timed = known & (targets_BN >= zero)
    words = known & ~timed
    loss = -logprobs_BNV[words].gather(1, targets_BN[words][:, None]).sum()
    offsets = torch.arange(-4, 5, device=logits_BNV.device)
    blur = torch.softmax(-0.5 * (offsets / 1.5) ** 2, 0)
    places = (targets_BN[timed][:, None] + offsets).clamp(zero, logits_BNV.shape[-1] - 1)
    loss = loss - timestamp_weight * (logprobs_BNV[timed].gather(1, places) * blur).sum()
    return loss / (words.sum() + timestamp_weight * timed.sum())


def misalignment(attention_BNT: Tensor, spans_BN2: Tensor, positions_BT: Tensor) -> Tensor:
    """Mean of -log of the attention that falls into the span of the word being said.

    `positions_BT`: which frames of the audio those are that are attended to.

    Where the words are is known, because we put them there: one head of each decoder layer is
    told, and attention aligns without thousands of steps of search.
    """
    inside_BNT = _inside(positions_BT, spans_BN2)
    share = (attention_BNT * inside_BNT).sum(-1)[inside_BNT.any(-1)]
    return -(share + 1e-4).log().mean() if len(share) else attention_BNT.new_zeros(())


def unheeded(scores_BT: Tensor, spans_BN2: Tensor) -> Tensor:
    """How far the attention that frames receive is from an even share for each that has speech.

    Cross-entropy less its least value, mean over the windows in which something is said.
    Which frames are kept has no gradient; this says that those with words are to be.
    """
    frames_1T = torch.arange(scores_BT.shape[1], device=scores_BT.device)[None]
    spoken_BT = _inside(frames_1T, spans_BN2).any(1)
    scores_BT, spoken_BT = scores_BT[spoken_BT.any(1)], spoken_BT[spoken_BT.any(1)]
    if not len(spoken_BT):
        return scores_BT.new_zeros(())
    count_B = spoken_BT.sum(1)
    costs_B = -((scores_BT + 1e-9).log() * spoken_BT).sum(1)
    return (costs_B / count_B - count_B.log()).mean()


def _inside(positions_BT: Tensor, spans_BN2: Tensor) -> Tensor:
    """(B, N, T): whether a frame of the audio is inside a word's span."""
    times_B1T = (positions_BT * FRAME_S)[:, None]
    return (times_B1T >= spans_BN2[..., :1]) & (times_B1T < spans_BN2[..., 1:])


def train(
    recipe: Recipe,
    dims: Dims,
    schedule: Schedule,
    folder: Path,
    *,
    workers: int,
    device: str = "cpu",
    start: Params | None = None,
) -> Params:
    """Trains to `schedule.num_steps`, from `folder`'s checkpoint if there is one.

    Otherwise from `start`, or from random parameters. Returns the averaged parameters. Losses go
    to `folder/curve.tsv`.
    """
    run = _start(new_params(dims, recipe.seed, device), schedule, folder, start)
    weights = from_state_dict(run.params, dims)
    began, audio_seconds = time.monotonic(), 0.0
    with tqdm(total=schedule.num_steps, initial=run.step, unit="step") as bar:
        for batch in _batches(recipe, run.step, workers):
            batch = batch.to(device)
            for group in run.optimiser.param_groups:
                group["lr"] = schedule.rate(run.step)
            # Where a CPU has no bf16 arithmetic, bf16 is many times slower than float32.
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                loss, ctc, attention = loss_of(weights, run.params, batch, schedule)
            run.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(_learned(run.params), 1.0)
            run.optimiser.step()
            run.step += 1
            taken = run.step - schedule.first_step
            _average(run, min(schedule.average, taken / (taken + 50)))
            audio_seconds += batch.seconds
            bar.update()
            bar.set_postfix(ctc=f"{ctc:.3f}", attention=f"{attention:.3f}")
            _log(folder, run.step, ctc, attention, audio_seconds, time.monotonic() - began)
            if run.step % schedule.save_every == 0 or run.step == schedule.num_steps:
                _save(run, folder)
    return run.averaged


def _batches(recipe: Recipe, first: int, workers: int) -> Iterator[TrainingBatch]:
    loader = DataLoader(
        recipe,
        batch_size=None,
        sampler=range(first, len(recipe)),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="fork" if workers else None,
    )
    yield from loader


def _start(params: Params, schedule: Schedule, folder: Path, start: Params | None) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    if start is not None:
        _copy(start, params)
    groups = [
        {"params": [p for p in _learned(params) if p.dim() > 1], "weight_decay": 0.02},
        {"params": [p for p in _learned(params) if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=schedule.peak_rate, betas=(0.9, 0.98))
    averaged = {name: p.detach().clone() for name, p in params.items()}
    run = Run(schedule.first_step, params, averaged, optimiser)
    path = folder / "last.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location=params["ctc.bias"].device)
        _copy(saved["params"], run.params)
        run.averaged, run.step = saved["averaged"], saved["step"]
        optimiser.load_state_dict(saved["optimiser"])
    return run


@torch.no_grad()
def _copy(source: Params, target: Params) -> None:
    for name, value in source.items():
        target[name].copy_(value)


def _save(run: Run, folder: Path) -> None:
    state = {
        "step": run.step,
        "params": {name: p.detach() for name, p in run.params.items()},
        "averaged": run.averaged,
        "optimiser": run.optimiser.state_dict(),
    }
    partial = folder / "last.pt.part"
    torch.save(state, partial)
    os.replace(partial, folder / "last.pt")


def _learned(params: Params) -> list[Tensor]:
    return [p for p in params.values() if p.requires_grad]


@torch.no_grad()
def _average(run: Run, keep: float) -> None:
    for name, value in run.params.items():
        run.averaged[name].lerp_(value.detach(), 1 - keep)


def _log(folder: Path, step: int, *values: float) -> None:
    with (folder / "curve.tsv").open("a", newline="") as file:
        csv.writer(file, delimiter="\t").writerow([step, *(f"{v:.4f}" for v in values)])
