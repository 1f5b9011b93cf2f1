"""Gates that learn which modules a window can do without, over a model that stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from service.families.whisper import Whisper
from service.lab.gates.forward import Example, dense_means, encoded, gated, hard
from service.lab.gates.losses import annealed, logistic, pull, share_off, straight_through
from service.lab.gates.state import FILE, Progress, load_state, save_state
from service.lab.gates.windows import Said
from service.model.gates import (
    CONTEXTS,
    DECODER_MODULES,
    ENCODER_MODULES,
    Gates,
    Predictor,
    context,
    tensors_of,
)

LEAST_SCALE = 1e-3  # what hardly varies is not made much of
SAVE_EVERY = 20  # steps
FURTHEST = 64.0  # that biases are moved: more than any logit is from 0
CLOSE = 0.005  # to the target
KEEPS = 0.9  # of the running share, at each step
SEED_OF_ORDER, SEED_OF_START = 7919, 104729


@dataclass(frozen=True, slots=True)
class Settings:
    """How gates are trained. `rate`: Adam's, of the weights; `bias_rate`: of each module's own
    bias. `start`: the logits of the module that costs least to leave out, and of the one that costs
    most. `first`, `last`: the temperatures between which it is annealed. `unknown`: how often a
    window's language is not told, as at run time it may not be. `bfloat16`: products are rounded
    to it."""

    target: float
    contexts: tuple[str, ...] = tuple(CONTEXTS)
    epochs: int = 2
    steps: int | None = None
    seed: int = 0
    hidden: int = 32
    rate: float = 2e-4
    bias_rate: float = 2e-2
    start: tuple[float, float] = (0.5, 6.5)
    first: float = 1.0
    last: float = 0.3
    weight: float = 50.0
    push: float = 2.0
    unknown: float = 0.5
    bfloat16: bool = True


@dataclass(frozen=True, slots=True)
class Epoch:
    """A line of a training: means over the epoch's windows, and over those that were held back,
    whose gates are as at run time."""

    number: int
    loss: float
    share_off: float
    held_loss: float
    held_share_off: float


class Training:
    """A training that can be left and gone on with after any step."""

    def __init__(
        self,
        model: Whisper,
        train: Sequence[Said],
        held: Sequence[Said],
        how: Settings,
        alone: Sequence[float],
    ) -> None:
        """`alone`: the loss without each module, from the encoder's first to the decoder's last."""
        self.model, self.train, self.held, self.how = model, train, held, how
        self.weights = model.checkpoint.weights
        self.gates = new_gates(model, train, how, alone)
        self.parameters = {
            name: tensor.requires_grad_()
            for name, tensor in tensors_of(self.gates).items()
            if not name.endswith((".centre", ".scale"))
        }
        biases = [p for name, p in self.parameters.items() if name.endswith("down_bias")]
        others = [p for name, p in self.parameters.items() if not name.endswith("down_bias")]
        self.optimizer = torch.optim.Adam(
            [{"params": biases, "lr": how.bias_rate}, {"params": others, "lr": how.rate}]
        )
        self.progress = Progress()

    @property
    def num_steps(self) -> int:
        return self.how.steps or self.how.epochs * len(self.train)

    def identity(self, data: str) -> dict[str, Any]:
        """What the next step depends on beside the state."""
        return {"model": self.model.info.name, "data": data, **asdict(self.how)}

    def resume(self, folder: Path, data: str) -> None:
        """Goes on where a folder's training stands. Raises what `load_state` raises."""
        if (folder / FILE).exists():
            self.progress = load_state(folder, self.identity(data), self.parameters, self.optimizer)

    def save(self, folder: Path, data: str) -> None:
        save_state(folder, self.identity(data), self.progress, self.parameters, self.optimizer)

    def run(self, folder: Path, data: str, done: Callable[[], object]) -> Iterator[Epoch]:
        """The steps that are left; after each, `done` is called. Yields the epochs' lines."""
        while self.progress.step < self.num_steps:
            self.step()
            done()
            step = self.progress.step
            ends = step % len(self.train) == 0 or step == self.num_steps
            if ends:
                yield self._close_epoch()
            if ends or step % SAVE_EVERY == 0:
                self.save(folder, data)

    def step(self) -> None:
        """One window forward and back."""
        how, progress = self.how, self.progress
        epoch, number = divmod(progress.step, len(self.train))
        example = self.train[_order(len(self.train), how.seed, epoch)[number]].example(self.model)
        temperature = annealed(how.first, how.last, progress.step / self.num_steps)
        draws = iter(range(len(self.gates.encoder) + 1))

        def draw(logits_M: Tensor) -> Tensor:
            noise_M = logistic(len(logits_M), how.seed, progress.step, next(draws))
            return straight_through(logits_M, noise_M, temperature)

        context_C = self._context(example, progress.step)
        with torch.autocast("cpu", torch.bfloat16, enabled=how.bfloat16):
            loss, logits_M = gated(self.weights, self.gates, example, context_C, draw)
        share = share_off(logits_M.float(), temperature)
        running = KEEPS * progress.running + (1 - KEEPS) * share.item()
        cost = loss + pull(share, running, how.target, progress.multiplier, how.weight)
        self.optimizer.zero_grad(set_to_none=True)
        cost.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        progress.running = running
        progress.multiplier += how.push * (how.target - running)
        progress.losses.append(loss.item())
        progress.shares.append(share.item())
        progress.step += 1

    def _context(self, example: Example, step: int) -> Tensor:
        source = torch.Generator().manual_seed(self.how.seed + step)
        told = float(torch.rand(1, generator=source)) >= self.how.unknown
        language = example.language if told else None
        return context(self.how.contexts, example.mel_1FT, example.frames, language)

    def _close_epoch(self) -> Epoch:
        progress = self.progress
        held_loss, held_share = self.measure(self.held, self.gates)
        line = Epoch(
            len(progress.epochs) + 1,
            _mean(progress.losses),
            _mean(progress.shares),
            held_loss,
            held_share,
        )
        progress.epochs.append(asdict(line))
        progress.losses, progress.shares = [], []
        return line

    @torch.no_grad()
    def measure(self, some: Sequence[Said], gates: Gates) -> tuple[float, float]:
        """The mean loss and share off of windows whose gates are as at run time."""
        losses, shares = [], []
        for said in some:
            loss, logits_M = self._judged(said, gates)
            losses.append(float(loss))
            shares.append(float((logits_M <= 0).float().mean()))
        return _mean(losses), _mean(shares)

    def _judged(self, said: Said, gates: Gates) -> tuple[Tensor, Tensor]:
        example = said.example(self.model)
        context_C = self._served_context(example, gates)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.how.bfloat16):
            return gated(self.weights, gates, example, context_C, hard)

    def _decided(self, said: Said, gates: Gates) -> Tensor:
        """The logits alone."""
        example = said.example(self.model)
        context_C = self._served_context(example, gates)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.how.bfloat16):
            return encoded(self.weights, gates, example, context_C, hard).logits_M.float()

    def _served_context(self, example: Example, gates: Gates) -> Tensor:
        """As at run time, where nobody says the language before a window is encoded."""
        language = self.model.info.only_language
        return context(gates.contexts, example.mel_1FT, example.frames, language)

    @torch.no_grad()
    def finished(self, some: Sequence[Said], rounds: int = 8) -> Gates:
        """The gates, all biases moved by one number so that `some` windows leave out the target's
        share of modules. Layers see what those before them left out, so it takes a few rounds."""
        own, by = detached(self.gates), 0.0
        least, most = -FURTHEST, FURTHEST
        tried: list[tuple[float, float]] = []
        for _ in range(rounds):
            gates = shifted(own, by)
            logits = torch.stack([self._decided(said, gates) for said in some]).flatten()
            missing = self.how.target - float((logits <= 0).float().mean())
            tried.append((abs(missing), by))
            if abs(missing) <= CLOSE:
                break
            least, most = (least, by) if missing > 0 else (by, most)
            by -= threshold(logits, self.how.target)
            # What is off changes the logits of the others, so that this may lead nowhere.
            if not least < by < most:
                by = (least + most) / 2
        return shifted(own, min(tried)[1])


def threshold(logits: Tensor, target: float) -> float:
    """Half way between the logits that are to be off and the others."""
    ordered = logits.sort().values
    num = round(target * len(ordered))
    if num == 0:
        return min(0.0, float(ordered[0]) - 1)
    if num == len(ordered):
        return float(ordered[-1]) + 1
    return float(ordered[num - 1] + ordered[num]) / 2


def shifted(gates: Gates, by: float) -> Gates:
    def moved(predictor: Predictor) -> Predictor:
        return replace(predictor, down_bias=predictor.down_bias + by)

    return replace(gates, encoder=tuple(map(moved, gates.encoder)), decoder=moved(gates.decoder))


def detached(gates: Gates) -> Gates:
    def free(predictor: Predictor) -> Predictor:
        parts = {name: getattr(predictor, name) for name in Predictor.__slots__}
        return Predictor(**{name: tensor.detach().clone() for name, tensor in parts.items()})

    return replace(gates, encoder=tuple(map(free, gates.encoder)), decoder=free(gates.decoder))


def new_gates(model: Whisper, some: Sequence[Said], how: Settings, alone: Sequence[float]) -> Gates:
    """Gates that are open, the less surely the less a module is missed, and whose inputs are
    measured on a few windows."""
    weights, dims = model.checkpoint.weights, model.checkpoint.weights.dims
    contexts = tuple(name for name in CONTEXTS if name in how.contexts)
    examples = [said.example(model) for said in some[:: max(1, len(some) // 32)][:32]]
    means = [dense_means(weights, one.mel_1FT, one.frames) for one in examples]
    about = torch.stack(
        [context(contexts, one.mel_1FT, one.frames, one.language) for one in examples]
    )
    source = torch.Generator().manual_seed(how.seed + SEED_OF_START)
    widths = [ENCODER_MODULES] * dims.encoder_layers + [DECODER_MODULES * dims.decoder_layers]
    biases = torch.split(starts(alone, how.start), widths)
    made = [
        _new_predictor(torch.cat([torch.stack(list(seen)), about], 1), bias_M, how, source)
        for seen, bias_M in zip(zip(*means, strict=True), biases, strict=True)
    ]
    return Gates(model.info.name, dims, how.target, contexts, tuple(made[:-1]), made[-1])


def starts(alone: Sequence[float], between: tuple[float, float]) -> Tensor:
    """A logit for each module, at even distances from the least missed to the most."""
    ranks = torch.tensor(alone).argsort(stable=True).argsort()
    low, high = between
    return low + (high - low) * ranks.float() / max(1, len(alone) - 1)


def _new_predictor(
    seen_NI: Tensor, bias_M: Tensor, how: Settings, source: torch.Generator
) -> Predictor:
    inputs = seen_NI.shape[1]
    spread = seen_NI.std(0, correction=0)
    return Predictor(
        centre=seen_NI.mean(0),
        scale=torch.where(spread > LEAST_SCALE, spread, torch.ones_like(spread)),
        up=torch.randn(how.hidden, inputs, generator=source) * inputs**-0.5,
        up_bias=torch.zeros(how.hidden),
        down=torch.randn(len(bias_M), how.hidden, generator=source) * 0.1 * how.hidden**-0.5,
        down_bias=bias_M.clone(),
    )


def _order(count: int, seed: int, epoch: int) -> list[int]:
    source = torch.Generator().manual_seed(seed + SEED_OF_ORDER * (epoch + 1))
    order: list[int] = torch.randperm(count, generator=source).tolist()
    return order


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
