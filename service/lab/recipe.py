"""The recipe of winnow-nano from the corpus folder to a checkpoint, each step resumable.

Decode the corpus, synthesise, learn a vocabulary, train on digit strings put together from single
digits; then let the CTC branch say where the words of the connected strings are, and train on.
English goes on from a model of digits in the same way: first without, then with its words' places.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from service.errors import ConfigError
from service.lab import corpus, synthesis
from service.lab.align import align, load_spans
from service.lab.corpus import Row
from service.lab.curriculum import DIGITS_FIRST, ENGLISH, Curriculum, has_sentences
from service.lab.dataset import Recipe
from service.lab.export import export
from service.lab.initial import Params, new_params
from service.lab.sentences import draw_sentence, plain, read_books
from service.lab.sources import DigitStrings, Sentences, Span
from service.lab.speech_set import SpeechSet, load_speech
from service.lab.train import Schedule, fit_ctc_head, train
from service.lab.vocabulary import train_vocabulary
from service.model.weights import Dims

# Where the words of each set's utterances are, as far as that is known.
Spans = dict[str, list[list[Span]]]

NUM_TEXT_TOKENS = 1000
HEAD_STEPS = 400
# Of the sentences drawn; three hours of real ones are said many times over.
REAL_SETS = {"librispeech": 0.27, "commonvoice": 0.02, "ljspeech": 0.01}
SENTENCE_SHARES = {**REAL_SETS, "sentences": 0.7}


@dataclass(frozen=True, slots=True)
class Domain:
    """What a model is to understand, and the shape and schedule that suit it.

    `restart_rate` is for a run that goes on from a checkpoint. `align_at`: steps of a run after
    which the CTC branch can say where words are.
    """

    curriculum: Curriculum
    d_model: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    peak_rate: float
    restart_rate: float
    warm_up: int
    align_at: int
    limits: str


DOMAINS = {
    "digits": Domain(
        curriculum=DIGITS_FIRST,
        d_model=128,
        heads=2,
        encoder_layers=6,
        decoder_layers=2,
        peak_rate=1e-3,
        restart_rate=4e-4,
        warm_up=200,
        align_at=2500,
        limits="It was trained to read connected spoken English digits (zero to nine, and oh) and "
        "nothing else: on other speech its words are wrong.",
    ),
    "english": Domain(
        curriculum=ENGLISH,
        d_model=128,
        heads=2,
        encoder_layers=6,
        decoder_layers=2,
        peak_rate=1e-3,
        restart_rate=1e-3,
        warm_up=200,
        align_at=3000,
        limits="It reads spoken English digits. It learned ordinary English from synthetic voices "
        "and three hours of real ones, and gets most words of a real one wrong.",
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
    """The speech of a plan, sentences by the names of their sets."""

    digits: SpeechSet
    synthetic: SpeechSet
    noises: SpeechSet
    sentences: dict[str, SpeechSet] = field(default_factory=dict)


def run(plan: Plan) -> Path:
    """Prepares what is missing, trains from the last checkpoint, and returns the export's folder.

    Raises ConfigError where the corpus, the texts or a speech synthesiser are missing.
    """
    domain = DOMAINS[plan.domain]
    tokenizer = _vocabulary(plan)
    material = prepare(plan)
    dims = dims_of(domain, tokenizer)
    start = None if plan.start is None else _started(plan, material, tokenizer, dims)
    rate = domain.peak_rate if start is None else domain.restart_rate
    schedule = Schedule(plan.num_steps, plan.first_step, rate, domain.warm_up)
    learn = partial(
        train,
        dims=dims,
        schedule=schedule,
        folder=plan.folder / "run",
        workers=plan.workers,
        device=plan.device,
        start=start,
    )
    align_at = min(plan.first_step + domain.align_at, plan.num_steps)
    spans: Spans = {}
    knows = start  # what can say where the words of digit strings are, and later of sentences
    for sets in ({"synthetic": material.synthetic}, material.sentences):
        paths = {name: plan.folder / "data" / f"{name}-spans.npy" for name in sets}
        for name in [name for name in sets if not paths[name].exists()]:
            if knows is None:
                knows = learn(_recipe(plan, material, tokenizer, align_at, spans))
            on_cpu = {name: value.cpu() for name, value in knows.items()}
            align(on_cpu, dims, sets[name], paths[name])
        spans |= {name: load_spans(paths[name], sets[name]) for name in sets}
        knows = None
    averaged = learn(_recipe(plan, material, tokenizer, plan.num_steps, spans))
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
        load_speech(data / name) for name in ("digits", "synthetic", "noise")
    )
    if not has_sentences(DOMAINS[plan.domain].curriculum):
        return Material(digits, synthetic, noises)
    for name in REAL_SETS:
        corpus.prepare(plan.corpus, data / name, partial(_is_train, name), plain)
    if not (data / "sentences").exists():
        script = partial(draw_sentence, sentences=read_books(plan.text, "train"))
        synthesis.synthesise(
            data / "sentences", "train", plan.sentences, plan.seed, max(1, plan.workers), script
        )
    sentences = {name: load_speech(data / name) for name in SENTENCE_SHARES}
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
    recipe = _recipe(plan, material, tokenizer, HEAD_STEPS, {})
    fit_ctc_head(recipe, params, dims, steps=HEAD_STEPS, workers=plan.workers)
    params = {name: value.detach() for name, value in params.items()}
    save_file(params, path)
    return params


def _recipe(
    plan: Plan, material: Material, tokenizer: Tokenizer, num_steps: int, spans: Spans
) -> Recipe:
    domain = DOMAINS[plan.domain]
    strings = DigitStrings(material.digits, material.synthetic, spans.get("synthetic"))
    sets = [
        (speech, SENTENCE_SHARES[name], spans.get(name))
        for name, speech in material.sentences.items()
    ]
    return Recipe(
        strings,
        Sentences(sets) if sets else None,
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
