"""The recipe of winnow-nano from the corpus folder to a checkpoint, each step resumable.

Decode the corpus, synthesise, learn a vocabulary, train on strings put together from single
digits; then let the CTC branch say where the words of the connected strings are, and train on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from service.errors import ConfigError
from service.lab import corpus, synthesis
from service.lab.align import align, load_spans
from service.lab.corpus import Row
from service.lab.dataset import Recipe, Span, Speech
from service.lab.export import export
from service.lab.train import Schedule, train
from service.lab.vocabulary import train_vocabulary
from service.model.weights import Dims

NUM_TEXT_TOKENS = 1000
ALIGN_AT = 2500  # steps after which the CTC branch is good enough to say where words are


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train from, where, and for how long. `synthetic`: strings to synthesise."""

    corpus: Path
    text: Path
    folder: Path
    num_steps: int
    synthetic: int = 22_000
    batch_seconds: float = 60.0
    workers: int = 1
    seed: int = 1


def run(plan: Plan) -> Path:
    """Prepares what is missing, trains from the last checkpoint, and returns the export's folder.

    Raises ConfigError where the corpus, the texts or a speech synthesiser are missing.
    """
    tokenizer = _vocabulary(plan)
    speech = prepare(plan)
    dims = nano_dims(tokenizer)
    run_folder, spans = plan.folder / "run", plan.folder / "data" / "synthetic-spans.npy"
    schedule = Schedule(plan.num_steps)
    if not spans.exists():
        first = _recipe(plan, speech, tokenizer, min(ALIGN_AT, plan.num_steps))
        params = train(first, dims, schedule, run_folder, workers=plan.workers)
        align(params, dims, speech.synthetic, spans)
    whole = _recipe(plan, speech, tokenizer, plan.num_steps, load_spans(spans, speech.synthetic))
    averaged = train(whole, dims, schedule, run_folder, workers=plan.workers)
    target = plan.folder / "winnow-nano"
    export(averaged, tokenizer, dims, target)
    return target


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
    path = plan.folder / "tokenizer.json"
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
