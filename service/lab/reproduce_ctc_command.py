"""`winnow reproduce ctc`: encoders read by CTC, trained here, with frames dropped and few bits."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import ConfigError
from service.lab.arguments import add_recordings, material_of, positive
from service.threads import usable_threads

if TYPE_CHECKING:
    from service.families.whisper import Whisper
    from service.lab.packing import Item
    from service.lab.reproduce.ctc.data import Lessons
    from service.lab.reproduce.ctc.model import CtcWeights
    from service.lab.reproduce.ctc.train import Recipe

MODEL = "whisper-tiny.en"
LEARNED = "librispeech,commonvoice,ljspeech"
KERNELS, UPPER = (15, 1), 2
STEPS, BATCH = (150, 1200, 250), (2, 4, 2)
HELD = 16
NARROW = {"avx512_bf16", "amx_bf16"}  # processors that multiply in bfloat16


def add(papers: Any) -> None:
    ctc = papers.add_parser(
        "ctc",
        help="both papers on encoders read by CTC, with and without convolutions",
        description="Trains two encoders that are read by CTC from Whisper's, one of attention and "
        "convolution and one without neighbours in its modules, then asks of both what Early "
        "Attentive Sparsification (arXiv 2506.15912) leaves open and what Attention or Convolution "
        "(arXiv 2311.02772) supposes. Writes report.html, report.json and the encoders, and goes "
        "on where it was stopped.",
    )
    recordings = ctc.add_argument_group("recordings")
    add_recordings(recordings, domains="to report on, rows of split test (NAME-packed: windows)")
    recordings.add_argument(
        "--learn",
        default=LEARNED,
        metavar="NAMES",
        help="folders of the corpus to train on, rows of split train (%(default)s)",
    )
    recordings.add_argument("--limit", type=positive, metavar="N", help="at most N of a domain")
    recordings.add_argument(
        "--held",
        type=positive,
        default=HELD,
        metavar="N",
        help="windows of speakers held back, to choose on (%(default)s)",
    )
    how = ctc.add_argument_group("how")
    how.add_argument("--model", default=MODEL, help="whose encoder is begun with (%(default)s)")
    how.add_argument(
        "--kernels",
        type=_kernels,
        default=KERNELS,
        metavar="K,K",
        help="an encoder for each, 1: no neighbours (15,1)",
    )
    how.add_argument(
        "--upper",
        type=positive,
        default=UPPER,
        metavar="N",
        help="layers that get a module and are trained, from the top (%(default)s)",
    )
    how.add_argument(
        "--steps",
        type=_steps,
        default=STEPS,
        metavar="N,N,N",
        help="of training: by frame, by CTC on utterances, on full windows (150,1200,250)",
    )
    how.add_argument("--threads", type=int, default=0, help="on a CPU (as many as may be used)")
    how.add_argument("--out", type=Path, required=True, metavar="DIR", help="where all goes")
    ctc.set_defaults(run=_run, pack=False, noise="", split="test")


def _kernels(text: str) -> tuple[int, ...]:
    kernels = tuple(positive(one) for one in text.split(","))
    if any(kernel % 2 == 0 for kernel in kernels):
        raise argparse.ArgumentTypeError(f"{text}: a kernel must be odd")
    return kernels


def _steps(text: str) -> tuple[int, ...]:
    steps = tuple(positive(one) for one in text.split(","))
    if len(steps) != len(STEPS):
        raise argparse.ArgumentTypeError(f"{text}: give three numbers, as in 150,1200,250")
    return steps


def _run(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from service.families.whisper import Whisper
    from service.lab.machine import about
    from service.lab.packing import evenly
    from service.lab.reproduce.claim import listed
    from service.lab.reproduce.ctc import report
    from service.lab.reproduce.ctc.data import lessons
    from service.lab.reproduce.ctc.experiments import Lab, look_into, num_parts
    from service.lab.reproduce.ctc.train import Recipe
    from service.lab.reproduce.record import Record
    from service.model.checkpoint import load_checkpoint
    from service.model.operators.choose import plain_operators

    threads = args.threads or usable_threads()
    torch.set_num_threads(threads)
    plain = plain_operators(torch.float32)
    model = Whisper(load_checkpoint(args.model, "cpu", operators=plain))
    dims = model.checkpoint.weights.dims
    if args.upper > dims.encoder_layers:
        raise ConfigError(f"--upper {args.upper}: the encoder has {dims.encoder_layers} layers")
    learned = lessons(_learned(args))
    material, domains = material_of(args)
    items = [item for domain in domains for item in material.items(domain)]
    windows = (items, evenly(learned.held, args.held))
    args.out.mkdir(parents=True, exist_ok=True)
    record, recipe = Record(args.out / "parts"), Recipe(args.steps, BATCH, seed=args.seed)
    found = about(args.arguments, model.info, threads)
    found["training"] = asdict(recipe)
    trained = _trained(args, model, learned, recipe)
    total = sum(num_parts(dims.encoder_layers, args.upper, kernel) for kernel in args.kernels)
    with tqdm(total=total, desc="study", unit="part", leave=False, disable=None) as bar:
        lab = Lab(record, {"winnow": found["winnow"]}, bar.update)
        encoders = [
            look_into(_name(weights), weights, recipe.total, windows, dims.num_mels, lab)
            for weights in trained
        ]
    claims = report.write(args.out, encoders, found)
    print(listed(claims))
    print(args.out / "report.html")
    return 0


def _name(weights: CtcWeights) -> str:
    return "convolution and attention" if weights.kernel > 1 else "attention alone"


def _learned(args: argparse.Namespace) -> list[Item]:
    from service.lab.material import Material, of_corpus, parse_domain

    if not args.corpus:
        raise ConfigError("the encoders are trained on a corpus: give --corpus")
    material = Material(of_corpus(args.corpus), "train")
    names = [name for name in args.learn.split(",") if name]
    return [item for name in names for item in material.items(parse_domain(name))]


def _trained(
    args: argparse.Namespace, model: Whisper, learned: Lessons, recipe: Recipe
) -> list[CtcWeights]:
    """What the folder has of each, trained to the end."""
    from tqdm import tqdm

    from service.lab.machine import machine
    from service.lab.reproduce.ctc.model import new_model
    from service.lab.reproduce.ctc.spell_out import told_windows
    from service.lab.reproduce.ctc.train import Window, steps_done, train, windows_of
    from service.lab.reproduce.record import digest

    encoder, num_mels = model.checkpoint.weights.encoder, model.info.num_mels
    narrow = not NARROW.isdisjoint(machine("cpu")["flags"])
    of = digest(learned.alone)
    trained, stages = [], list[list[Window]]()
    for kernel in args.kernels:
        path = args.out / f"kernel-{kernel}.pt"
        start, done = new_model(encoder, kernel, args.upper, args.seed), steps_done(path)
        if done < recipe.total and not stages:  # below the modules all kernels are the same
            shown = (learned.alone, learned.joined)
            stages = [told_windows(model, start, learned.told, bfloat16=narrow)]
            stages += [windows_of(start, some, num_mels, bfloat16=narrow) for some in shown]
        with tqdm(total=recipe.total, initial=done, desc=path.stem, disable=None) as bar:

            def stepped(number: int, loss: float, bar: Any = bar) -> None:
                bar.set_postfix(loss=f"{loss:.2f}")
                bar.update(number - bar.n)

            trained.append(train(start, stages, recipe, path, stepped, of=of, bfloat16=narrow))
    return trained
