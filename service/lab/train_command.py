"""`winnow train`: what a model is given beside its weights, learnt from recordings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.config import ServerConfig
from service.errors import ConfigError, WinnowError
from service.lab.arguments import add_material, material_of, positive
from service.lab.gates_command import add_fixed, add_measure
from service.threads import usable_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.lab.gates.training import Settings, Training
    from service.lab.gates.windows import Said

CONTEXTS = "language,event"
TRAINING = ".training"  # behind the folder's name: where a training stands
HELD_BACK, MOST_HELD = 10, 24  # every tenth window, at most so many
LEAST_WINDOWS = 3
TRIED = 6  # windows on which each module is left out
CALIBRATED = 24  # windows on which the target is met


def add(subparsers: Any) -> None:
    train = subparsers.add_parser(
        "train",
        help="train gates: which modules of a model a window can do without",
        description="Trains what a model is given beside its weights, which stay as they are.",
    )
    ways = train.add_subparsers(title="ways", required=True, metavar="WAY")
    parser = ways.add_parser(
        "gates",
        help="predictors of which modules a window can do without (arXiv 2505.18860)",
        description="Trains small predictors that decide, for each window, which modules of each "
        "layer run, so that a share of them is left out and the text stays what the whole model "
        "says. Transcripts are not looked at. Recordings of more than 30 s are left out.",
    )
    add_material(parser.add_argument_group("recordings"))
    parser.set_defaults(split="train")
    how = parser.add_argument_group("how")
    how.add_argument("--model", default=ServerConfig().model, help="(%(default)s)")
    how.add_argument(
        "--target", type=float, required=True, metavar="SHARE", help="of the modules, to leave out"
    )
    how.add_argument(
        "--context",
        default=CONTEXTS,
        metavar="NAMES",
        help="what predictors know beside the window's states: language, event (how it sounds), "
        "or none (%(default)s)",
    )
    how.add_argument("--epochs", type=positive, default=2, metavar="N", help="(%(default)s)")
    how.add_argument("--steps", type=positive, metavar="N", help="windows, instead of epochs")
    how.add_argument(
        "--float32", action="store_true", help="products are not rounded to bfloat16 in training"
    )
    how.add_argument("--threads", type=int, default=0, help="(as many as may be used)")
    how.add_argument("--resume", action="store_true", help="go on where it was stopped")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help=f"what is written; must be new. Until then FOLDER{TRAINING} holds what there is",
    )
    parser.set_defaults(run=_gates)
    add_fixed(ways)
    add_measure(ways)


def _gates(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from service.families.whisper import Whisper
    from service.lab.gates.fixed import alone
    from service.lab.gates.training import Training
    from service.lab.gates.windows import heard, whole_windows
    from service.lab.reproduce.record import digest
    from service.model.checkpoint import load_checkpoint
    from service.model.gates import num_modules
    from service.model.operators.choose import plain_operators

    how = _settings(args)
    folder = _training_folder(args.out, args.resume)
    torch.set_num_threads(args.threads or usable_threads())
    material, domains = material_of(args)
    items = whole_windows([item for domain in domains for item in material.items(domain)])
    with tqdm(total=len(items), desc="hearing", unit="window", disable=None) as bar:
        said = heard(args.model, items, folder, bar.update)
    train, held = _held_back(said)
    # By torch's own products: others have no gradient.
    plain = plain_operators(torch.float32)
    model = Whisper(load_checkpoint(args.model, "cpu", operators=plain))
    some = [one.example(model) for one in train[:: max(1, len(train) // TRIED)][:TRIED]]
    weights, count = model.checkpoint.weights, num_modules(model.checkpoint.weights.dims)
    data = digest(items)
    key = {"model": args.model, "items": data, "bfloat16": how.bfloat16}
    with tqdm(total=count, desc="trying", unit="module", disable=None) as bar:
        missed = alone(weights, some, folder, key, bar.update, bfloat16=how.bfloat16)
    training = Training(model, train, held, how, missed)
    training.resume(folder, data)
    with tqdm(total=training.num_steps, desc="training", unit="window", disable=None) as bar:
        bar.update(training.progress.step)
        for line in training.run(folder, data, bar.update):
            print(
                f"epoch {line.number}: loss {line.loss:.3f}, {line.share_off:.1%} off; held back: "
                f"loss {line.held_loss:.3f}, {line.held_share_off:.1%} off"
            )
            sys.stdout.flush()
    return _finish(training, args, folder, data, len(said))


def _finish(
    training: Training, args: argparse.Namespace, folder: Path, data: str, num_windows: int
) -> int:
    import shutil
    import tempfile
    from dataclasses import asdict, replace

    from service.lab.gates.fixed import opened
    from service.model.gates import constant, write_gates

    every = max(1, len(training.train) // CALIBRATED)
    gates = training.finished(training.train[::every][:CALIBRATED])
    loss, share = training.measure(training.held, gates)
    dims = training.gates.dims
    every_one = constant(training.gates.model, dims, opened(dims, ()))
    whole, _ = training.measure(training.held, every_one)
    trained = {
        "settings": asdict(training.how),
        "windows": num_windows,
        "recordings": {
            "domains": args.domains,
            "split": args.split,
            "limit": args.limit,
            "digest": data,
        },
        "epochs": training.progress.epochs,
        "held_back": {"loss": loss, "dense_loss": whole, "share_off": share},
    }
    with tempfile.TemporaryDirectory(prefix=f"{args.out.name}.", dir=folder.parent) as work:
        made = Path(work) / "new"
        made.mkdir()
        norm_D = training.weights.encoder.norm.weight
        write_gates(replace(gates, trained=trained, norm_D=norm_D), made)
        made.rename(args.out)
    shutil.rmtree(folder)
    print(
        f"{args.out}: {share:.1%} of the modules off on held-back windows, loss {loss:.3f} there, "
        f"{whole:.3f} with all of them"
    )
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from service.lab.gates.training import Settings
    from service.model.gates import CONTEXTS as KNOWN

    if not 0 < args.target < 1:
        raise ConfigError(f"--target {args.target}: use a number between 0 and 1")
    names = [] if args.context == "none" else [name for name in args.context.split(",") if name]
    if unknown := [name for name in names if name not in KNOWN]:
        raise ConfigError(f"--context {unknown[0]}: use {', '.join(KNOWN)}, or none")
    return Settings(
        args.target,
        tuple(name for name in KNOWN if name in names),
        epochs=args.epochs,
        steps=args.steps,
        seed=args.seed,
        bfloat16=not args.float32,
    )


def _training_folder(out: Path, resume: bool) -> Path:
    """Where the training is while it goes on. Raises ConfigError where something is in the way."""
    from service.lab.gates.state import FILE

    if out.exists():
        raise ConfigError(f"--out {out}: is there already; name a new folder")
    folder = out.absolute().with_name(out.name + TRAINING)
    if not folder.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder to write it in")
    if (folder / FILE).exists() and not resume:
        raise ConfigError(f"{folder} has a training that was stopped; go on with it by --resume")
    folder.mkdir(exist_ok=True)
    return folder


def _held_back(said: Sequence[Said]) -> tuple[list[Said], list[Said]]:
    """Windows to train on, and others. Raises WinnowError where there are too few."""
    if len(said) < LEAST_WINDOWS:
        raise WinnowError(
            f"{len(said)} windows of these recordings can be trained on, which are too few; give "
            "more, of at most 30 s each"
        )
    every = min(HELD_BACK, len(said))
    held = list(said[every - 1 :: every])[:MOST_HELD]
    return [one for number, one in enumerate(said) if number % every != every - 1], held
