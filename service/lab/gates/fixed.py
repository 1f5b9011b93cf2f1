"""The same modules off for every window, chosen by what it costs: what gates have to beat."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from service.lab.gates.forward import Example, gated
from service.model.gates import DECODER_MODULES, ENCODER_MODULES, constant, num_modules
from service.model.weights import Dims, Weights
from service.types import OpenModules

ALONE = "alone.json"
CANDIDATES = 10  # those that cost least alone; others are not tried beside them

# Which modules are off -> the mean loss of some windows.
Loss = Callable[[Sequence[int]], float]


def loss_of(weights: Weights, examples: Sequence[Example], *, bfloat16: bool = True) -> Loss:
    """Modules are numbered as `opened` has them."""
    dims = weights.dims
    every = constant("", dims, opened(dims, ()))

    @torch.no_grad()
    def loss(off: Sequence[int]) -> float:
        total = 0.0
        for example in examples:
            runs = iter([float(one not in off) for one in range(num_modules(dims))])

            def draw(logits_M: Tensor, runs: Iterator[float] = runs) -> Tensor:
                return torch.tensor([next(runs) for _ in logits_M])

            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                total += float(gated(weights, every, example, torch.zeros(0), draw)[0])
        return total / len(examples)

    return loss


def alone(
    weights: Weights,
    examples: Sequence[Example],
    folder: Path,
    key: Mapping[str, object],
    done: Callable[[], object],
    *,
    bfloat16: bool = True,
) -> list[float]:
    """The loss without each module. What was found is kept in `folder`, under what it is of."""
    path = folder / ALONE
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        kept = {}
    found: list[float] = kept.pop("losses", [])
    if kept != key:
        found, loss = [], loss_of(weights, examples, bfloat16=bfloat16)
        for module in range(num_modules(weights.dims)):
            found.append(loss([module]))
            done()
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps({**key, "losses": found}))
        beside.replace(path)
    return found


def greedy(loss: Loss, count: int, num: int, done: Callable[[], object]) -> list[tuple[int, float]]:
    """`num` of `count` modules, one after the other: each the one without which, beside those
    before it, the loss is least; and that loss."""
    alone = []
    for module in range(count):
        alone.append((loss([module]), module))
        done()
    near = sorted(alone)[: max(CANDIDATES, num)]
    chosen = [(near[0][1], near[0][0])]
    while len(chosen) < num:
        off = [module for module, _ in chosen]
        tried = []
        for _, module in near:
            if module not in off:
                tried.append((loss([*off, module]), module))
                done()
        least, module = min(tried)
        chosen.append((module, least))
    return chosen


def trials(count: int, num: int) -> int:
    """How many losses `greedy` asks for."""
    near = min(count, max(CANDIDATES, num))
    return count + sum(near - number for number in range(1, num))


def opened(dims: Dims, off: Sequence[int]) -> OpenModules:
    """All modules but those, numbered from the encoder's first layer to the decoder's last."""
    runs = [number not in off for number in range(num_modules(dims))]
    first = ENCODER_MODULES * dims.encoder_layers
    return OpenModules(_split(runs[:first], ENCODER_MODULES), _split(runs[first:], DECODER_MODULES))


def _split(runs: Sequence[bool], each: int) -> tuple[tuple[bool, ...], ...]:
    return tuple(tuple(runs[at : at + each]) for at in range(0, len(runs), each))
