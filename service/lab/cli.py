"""`winnow train` and `winnow evaluate`."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.lab.evaluate import Utterance
    from service.model.protocol import SpeechModel
    from service.profiles import Profile

# torch takes seconds to import and help should not: each command imports what it runs.
NUM_STEPS = 6250


def add_commands(subparsers: Any) -> None:
    """Adds the lab's commands; each sets `run`, which takes the arguments and returns a status."""
    train = subparsers.add_parser(
        "train",
        help="train winnow-nano from a corpus folder",
        description="Trains winnow-nano. Stopped and started again, it goes on exactly where its "
        "last checkpoint was. Needs espeak-ng, flite and festival for the synthetic speech.",
    )
    train.add_argument("--corpus", type=Path, required=True, help="folder with manifest.tsv")
    train.add_argument(
        "--text", type=Path, required=True, help="folder of *.txt, a line a sentence"
    )
    train.add_argument("--out", type=Path, default=Path("runs/nano"), help="default: %(default)s")
    train.add_argument("--steps", type=int, default=NUM_STEPS, help="the step to train to")
    train.add_argument("--start", type=Path, help="a checkpoint of winnow-nano to go on from")
    train.add_argument("--first-step", type=int, default=0, help="steps that --start was trained")
    train.add_argument("--synthetic", type=int, default=22_000, help="strings to synthesise")
    train.add_argument("--threads", type=int, default=0, help="torch threads (default: torch's)")
    train.add_argument("--workers", type=int, default=1, help="processes that make batches")
    train.add_argument("--seed", type=int, default=1)
    train.set_defaults(run=_train)

    curve = subparsers.add_parser("curve", help="draw a training run's losses as a PNG")
    curve.add_argument("table", type=Path, help="curve.tsv of a run")
    curve.add_argument("picture", type=Path, help="the PNG to write")
    curve.set_defaults(run=_curve)

    evaluate = subparsers.add_parser(
        "evaluate",
        help="word error rate by domain and profile",
        description="Prints corpus word error rate after Whisper's normaliser, as a table.",
    )
    evaluate.add_argument("--model", default="embedded", help="default: %(default)s")
    evaluate.add_argument("--corpus", type=Path, required=True, help="folder with manifest.tsv")
    evaluate.add_argument("--data", type=Path, default=Path("runs/evaluate"), help="cache folder")
    evaluate.add_argument("--profiles", default="dense,balanced,fast", help="default: %(default)s")
    evaluate.add_argument("--profiles-file", type=Path, help="a TOML file of further profiles")
    evaluate.add_argument("--strings", type=int, default=200, help="digit strings per domain")
    evaluate.add_argument("--threads", type=int, default=0, help="torch threads (default: torch's)")
    evaluate.add_argument(
        "--times", action="store_true", help="errors of word times instead of words"
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of a table")
    evaluate.set_defaults(run=_evaluate)


def _train(args: argparse.Namespace) -> int:
    import torch

    from service.lab import recipe

    if args.threads:
        torch.set_num_threads(args.threads)
    plan = recipe.Plan(
        corpus=args.corpus,
        text=args.text,
        folder=args.out,
        num_steps=args.steps,
        synthetic=args.synthetic,
        workers=args.workers,
        seed=args.seed,
        start=args.start,
        first_step=args.first_step,
    )
    print(recipe.run(plan))
    return 0


def _curve(args: argparse.Namespace) -> int:
    from service.lab.curve import plot

    plot(args.table, args.picture)
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    import torch

    from service.errors import ConfigError
    from service.lab.evaluate import score
    from service.model.load import load_model
    from service.profiles import check_depth, load_profiles

    if args.threads:
        torch.set_num_threads(args.threads)
    model = load_model(args.model)
    profiles = load_profiles(args.profiles_file)
    check_depth(profiles, model.info.num_encoder_layers)
    if unknown := [name for name in args.profiles.split(",") if name not in profiles]:
        raise ConfigError(f"unknown profile {unknown[0]!r}; use {', '.join(profiles)}")
    chosen = [profiles[name] for name in args.profiles.split(",")]
    if args.times:
        return _times(args, model, chosen)
    rows = {
        name: {p.name: score(model, utterances, p) for p in chosen}
        for name, utterances in _domains(args).items()
    }
    if args.json:
        print(json.dumps({n: {p: s.wer for p, s in row.items()} for n, row in rows.items()}))
        return 0
    print(f"{'domain':<42}{'words':>7}" + "".join(f"{p.name:>10}" for p in chosen))
    for name, row in rows.items():
        words = next(iter(row.values())).words
        print(f"{name:<42}{words:>7}" + "".join(f"{s.wer:>10.1%}" for s in row.values()))
    return 0


def _times(args: argparse.Namespace, model: SpeechModel, profiles: Sequence[Profile]) -> int:
    from service.lab import synthesis
    from service.lab.times import measure, timed_digits

    _prepare_digits(args)
    strings = timed_digits(synthesis.load(args.data / "digits"), args.strings)
    rows = {p.name: measure(model, strings, p).summary() for p in profiles}
    if args.json:
        print(json.dumps(rows))
        return 0
    print(f"{'seconds':<18}" + "".join(f"{name:>12}" for name in rows))
    for figure in next(iter(rows.values())):
        shown = (f"{row.get(figure, math.nan):>12.4g}" for row in rows.values())
        print(f"{figure:<18}" + "".join(shown))
    return 0


def _prepare_digits(args: argparse.Namespace) -> None:
    from service.lab import corpus

    corpus.prepare(
        args.corpus,
        args.data / "digits",
        lambda row: row["split"] == "test" and row["path"].startswith("digits/"),
    )


def _domains(args: argparse.Namespace) -> dict[str, list[Utterance]]:
    from service.lab import synthesis
    from service.lab.evaluate import connected_digits, whole

    _prepare_digits(args)
    digits = synthesis.load(args.data / "digits")
    domains = {"connected digits, unseen real speaker": connected_digits(digits, args.strings)}
    if not (args.data / "synthetic").exists() and not synthesis.missing_engines():
        synthesis.synthesise(args.data / "synthetic", "test", args.strings, seed=2)
    if (args.data / "synthetic").exists():
        unseen = synthesis.load(args.data / "synthetic")
        domains["connected digits, unseen synthetic voices"] = whole(unseen)
    return domains
