"""The recipe of winnow-nano from the corpus folder to a checkpoint, each step resumable.

Decode the corpus, synthesise, learn a vocabulary, train on digit strings put together from single
digits; then let the CTC branch say where the words of the connected strings are, and train on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from service.errors import ConfigError
from service.lab import corpus, synthesis
from service.lab.align import align, load_spans
from service.lab.corpus import Row
from service.lab.dataset import DIGITS_FIRST, ENGLISH, Curriculum, Recipe
from service.lab.export import export
from service.lab.sentences import draw_sentence, plain, read_books
from service.lab.sources import DigitStrings, Sentences, Source, Span
from service.lab.synthesis import SpeechSet
from service.lab.train import Params, Schedule, fit_ctc_head, new_params, train
from service.lab.vocabulary import train_vocabulary
from service.model.weights import Dims

NUM_TEXT_TOKENS = 1000
HEAD_STEPS = 400
RESTART_RATE = 4e-4
# Of the sentences drawn; the real ones are said a hundred times over, the synthetic ones twice.
REAL_SETS = {"librispeech": 0.45, "commonvoice": 0.04, "ljspeech": 0.02}
SYNTHETIC_SHARE = 0.49


@dataclass(frozen=True, slots=True)
class Domain:
    """What a model is to understand, and the shape and schedule that suit it.

    `align_at`: steps after which the CTC branch can say where the words of a digit string are;
    `digit_share` of the utterances are digit strings, the others sentences.
    """

    curriculum: Curriculum
    d_model: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    peak_rate: float
    warm_up: int
    mask_from: int
    align_at: int
    digit_share: float
    limits: str


DOMAINS = {
    "digits": Domain(
        curriculum=DIGITS_FIRST,
        d_model=128,
        heads=2,
        encoder_layers=6,
        decoder_layers=2,
        peak_rate=1e-3,
        warm_up=200,
        mask_from=1200,
        align_at=2500,
        digit_share=1.0,
        limits="It was trained to read connected spoken English digits (zero to nine, and oh) and "
        "nothing else: on other speech its words are wrong.",
    ),
    "english": Domain(
        curriculum=ENGLISH,
        d_model=256,
        heads=4,
        encoder_layers=8,
        decoder_layers=3,
        peak_rate=8e-4,
        warm_up=400,
        mask_from=1500,
        align_at=2500,
        digit_share=0.15,
        limits="It was trained on a few hours of read English and on synthetic voices: on other "
        "speech many of its words are wrong.",
    ),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train from, where, on what, and to which step.

    `synthetic` digit strings and `sentences` are synthesised. `start`: a checkpoint in hub format
    to go on from, which was trained for `first_step` steps.
    """

    corpus: Path
    text: Path
    folder: Path
    num_steps: int
    domain: str = "digits"
    synthetic: int = 22_000
    sentences: int = 60_000
    batch_seconds: float = 60.0
    device: str = "cpu"
    workers: int = 1
    seed: int = 1
    start: Path | None = None
    first_step: int = 0


@dataclass(frozen=True, slots=True)
class Material:
    """The speech of a plan. `sentences`: sets with their shares of the sentences drawn."""

    digits: SpeechSet
    synthetic: SpeechSet
    noises: SpeechSet
    sentences: tuple[tuple[float, SpeechSet], ...] = ()


def run(plan: Plan) -> Path:
    """Prepares what is missing, trains from the last checkpoint, and returns the export's folder.

    Raises ConfigError where the corpus, the texts or a speech synthesiser are missing.
    """
    domain = DOMAINS[plan.domain]
    tokenizer = _vocabulary(plan)
    material = prepare(plan)
    dims = dims_of(domain, tokenizer)
    start = None if plan.start is None else _started(plan, material, tokenizer, dims)
    rate = domain.peak_rate if start is None else RESTART_RATE
    schedule = Schedule(plan.num_steps, plan.first_step, rate, domain.warm_up, domain.mask_from)
    learn = partial(
        train,
        dims=dims,
        schedule=schedule,
        folder=plan.folder / "run",
        workers=plan.workers,
        device=plan.device,
        start=start,
    )
    spans = plan.folder / "data" / "synthetic-spans.npy"
    if not spans.exists():
        params = start
        if params is None:
            params = learn(_recipe(plan, material, tokenizer, min(domain.align_at, plan.num_steps)))
        on_cpu = {name: value.cpu() for name, value in params.items()}
        align(on_cpu, dims, material.synthetic, spans)
    located = load_spans(spans, material.synthetic)
    averaged = learn(_recipe(plan, material, tokenizer, plan.num_steps, located))
    target = plan.folder / "winnow-nano"
    export(averaged, tokenizer, dims, domain.limits, target)
    return target


def prepare(plan: Plan) -> Material:
    """Decodes the corpus' train split and synthesises strings, where that is not done yet.

    Returns what the plan's domain asks for.
    """
    data = plan.folder / "data"
    for name in ("digits", "noise"):
        corpus.prepare(plan.corpus, data / name, partial(_is_train, name))
    if not (data / "synthetic").exists():
        synthesis.synthesise(data / "synthetic", "train", plan.synthetic, plan.seed)
    digits, synthetic, noises = (
        synthesis.load(data / name) for name in ("digits", "synthetic", "noise")
    )
    if DOMAINS[plan.domain].digit_share == 1:
        return Material(digits, synthetic, noises)
    for name in REAL_SETS:
        corpus.prepare(plan.corpus, data / name, partial(_is_train, name), plain)
    if not (data / "sentences").exists():
        script = partial(draw_sentence, sentences=read_books(plan.text, "train"))
        synthesis.synthesise(
            data / "sentences", "train", plan.sentences, plan.seed, max(1, plan.workers), script
        )
    shares = {**REAL_SETS, "sentences": SYNTHETIC_SHARE}
    sentences = tuple((share, synthesis.load(data / name)) for name, share in shares.items())
    return Material(digits, synthetic, noises, sentences)


def dims_of(domain: Domain, tokenizer: Tokenizer) -> Dims:
    """winnow-nano's shape for a domain: Whisper's, in miniature."""
    return Dims(
        num_mels=80,
        num_frames=1500,
        d_model=domain.d_model,
        encoder_heads=domain.heads,
        decoder_heads=domain.heads,
        encoder_layers=domain.encoder_layers,
        decoder_layers=domain.decoder_layers,
        vocab_size=tokenizer.get_vocab_size(),
        max_tokens=448,
    )


def _started(plan: Plan, material: Material, tokenizer: Tokenizer, dims: Dims) -> Params:
    """The parameters of the checkpoint to go on from, with a CTC head fitted to them."""
    assert plan.start is not None
    path = plan.folder / "start.safetensors"
    if path.exists():
        return load_file(path)
    params = new_params(dims, plan.seed)
    with torch.no_grad():
        for name, value in load_file(plan.start / "model.safetensors").items():
            params[name].copy_(value)
    recipe = _recipe(plan, material, tokenizer, HEAD_STEPS)
    fit_ctc_head(recipe, params, dims, steps=HEAD_STEPS, workers=plan.workers)
    params = {name: value.detach() for name, value in params.items()}
    save_file(params, path)
    return params


def _recipe(
    plan: Plan,
    material: Material,
    tokenizer: Tokenizer,
    num_steps: int,
    spans: list[list[Span]] | None = None,
) -> Recipe:
    domain = DOMAINS[plan.domain]
    strings = DigitStrings(material.digits, material.synthetic, spans)
    sources: list[tuple[float, Source]] = [(domain.digit_share, strings)]
    if material.sentences:
        shares, sets = zip(*material.sentences, strict=True)
        sources.append((1 - domain.digit_share, Sentences(sets, shares)))
    return Recipe(
        sources,
        material.noises,
        tokenizer,
        domain.curriculum,
        num_steps=num_steps,
        seconds=plan.batch_seconds,
        seed=plan.seed,
    )


def _vocabulary(plan: Plan) -> Tokenizer:
    path = (plan.start or plan.folder) / "tokenizer.json"
    if path.exists():
        return Tokenizer.from_file(str(path))
    books = sorted(plan.text.glob("*.txt"))
    if not books:
        raise ConfigError(f"{plan.text}: no *.txt to learn a vocabulary from")
    lines = [line for book in books for line in book.read_text().splitlines()]
    if plan.domain != "digits":
        lines = [f" {plain(line)}" for line in lines]
    tokenizer = train_vocabulary(lines, NUM_TEXT_TOKENS)
    plan.folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


def _is_train(folder: str, row: Row) -> bool:
    return row["split"] == "train" and row["path"].split("/")[0] == folder
