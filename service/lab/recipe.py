"""The recipe of winnow-nano from the corpus folder to a checkpoint, each step resumable.

Decode the corpus, synthesise, learn a vocabulary, train on strings put together from single
digits; then let the CTC branch say where the words of the connected strings are, and train on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from service.errors import ConfigError
from service.lab import corpus, synthesis
from service.lab.align import align, load_spans
from service.lab.corpus import Row
from service.lab.dataset import Recipe, Span, Speech
from service.lab.export import export
from service.lab.train import Params, Schedule, fit_ctc_head, new_params, train
from service.lab.vocabulary import train_vocabulary
from service.model.weights import Dims

NUM_TEXT_TOKENS = 1000
ALIGN_AT = 2500  # steps after which the CTC branch is good enough to say where words are
HEAD_STEPS = 400
RESTART_RATE = 7e-4


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train from, where, and to which step. `synthetic`: strings to synthesise.

    `start`: a checkpoint in hub format to go on from, which was trained for `first_step` steps.
    """

    corpus: Path
    text: Path
    folder: Path
    num_steps: int
    synthetic: int = 22_000
    batch_seconds: float = 60.0
    workers: int = 1
    seed: int = 1
    start: Path | None = None
    first_step: int = 0


def run(plan: Plan) -> Path:
    """Prepares what is missing, trains from the last checkpoint, and returns the export's folder.

    Raises ConfigError where the corpus, the texts or a speech synthesiser are missing.
    """
    tokenizer = _vocabulary(plan)
    speech = prepare(plan)
    dims = nano_dims(tokenizer)
    run_folder, spans = plan.folder / "run", plan.folder / "data" / "synthetic-spans.npy"
    start, schedule = None, Schedule(plan.num_steps)
    if plan.start is not None:
        start = _started(plan, speech, tokenizer, dims)
        schedule = Schedule(plan.num_steps, plan.first_step, RESTART_RATE)
    if not spans.exists():
        params = start
        if params is None:
            first = _recipe(plan, speech, tokenizer, min(ALIGN_AT, plan.num_steps))
            params = train(first, dims, schedule, run_folder, workers=plan.workers)
        align(params, dims, speech.synthetic, spans)
    whole = _recipe(plan, speech, tokenizer, plan.num_steps, load_spans(spans, speech.synthetic))
    averaged = train(whole, dims, schedule, run_folder, workers=plan.workers, start=start)
    target = plan.folder / "winnow-nano"
    export(averaged, tokenizer, dims, target)
    return target


def _started(plan: Plan, speech: Speech, tokenizer: Tokenizer, dims: Dims) -> Params:
    """The parameters of the checkpoint to go on from, with a CTC head fitted to them."""
    assert plan.start is not None
    path = plan.folder / "start.safetensors"
    params = new_params(dims, plan.seed)
    if path.exists():
        return load_file(path)
    with torch.no_grad():
        for name, value in load_file(plan.start / "model.safetensors").items():
            params[name].copy_(value)
    recipe = _recipe(plan, speech, tokenizer, HEAD_STEPS)
    fit_ctc_head(recipe, params, dims, steps=HEAD_STEPS, workers=plan.workers)
    params = {name: value.detach() for name, value in params.items()}
    save_file(params, path)
    return params


def _recipe(
    plan: Plan,
    speech: Speech,
    tokenizer: Tokenizer,
    num_steps: int,
    spans: list[list[Span]] | None = None,
) -> Recipe:
    return Recipe(
        speech,
        tokenizer,
        num_steps=num_steps,
        seconds=plan.batch_seconds,
        seed=plan.seed,
        spans=spans,
    )


def prepare(plan: Plan) -> Speech:
    """Decodes the corpus' train split and synthesises strings, where that is not done yet."""
    data = plan.folder / "data"
    corpus.prepare(plan.corpus, data / "digits", lambda row: _is(row, "train", "digits"))
    corpus.prepare(plan.corpus, data / "noise", lambda row: _is(row, "train", "noise"))
    if not (data / "synthetic").exists():
        synthesis.synthesise(data / "synthetic", "train", plan.synthetic, plan.seed)
    sets = (synthesis.load(data / name) for name in ("digits", "synthetic", "noise"))
    return Speech(*sets)


def nano_dims(tokenizer: Tokenizer) -> Dims:
    """winnow-nano's shape: Whisper's, six layers deep and 128 wide."""
    return Dims(
        num_mels=80,
        num_frames=1500,
        d_model=128,
        encoder_heads=2,
        decoder_heads=2,
        encoder_layers=6,
        decoder_layers=2,
        vocab_size=tokenizer.get_vocab_size(),
        max_tokens=448,
    )


def _vocabulary(plan: Plan) -> Tokenizer:
    path = (plan.start or plan.folder) / "tokenizer.json"
    if path.exists():
        return Tokenizer.from_file(str(path))
    books = sorted(plan.text.glob("*.txt"))
    if not books:
        raise ConfigError(f"{plan.text}: no *.txt to learn a vocabulary from")
    lines = [line for book in books for line in book.read_text().splitlines()]
    tokenizer = train_vocabulary(lines, NUM_TEXT_TOKENS)
    plan.folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


def _is(row: Row, split: str, folder: str) -> bool:
    return row["split"] == split and row["path"].split("/")[0] == folder
