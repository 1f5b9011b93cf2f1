"""`winnow train` and `winnow evaluate`."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.lab.domains import Places
    from service.lab.evaluate import Score
    from service.model.protocol import SpeechModel
    from service.profiles import Profile

    Rows = dict[str, dict[str, Score]]

# torch takes seconds to import and help should not: each command imports what it runs.
NUM_STEPS = 6250
GRID_LAYERS = (1, 2, 3, 4)
GRID_SPARSITIES = (0, 0.2, 0.4, 0.5, 0.6, 0.8)


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
    train.add_argument("--domain", choices=("digits", "english"), default="digits")
    train.add_argument("--steps", type=int, default=NUM_STEPS, help="the step to train to")
    train.add_argument("--start", type=Path, help="a checkpoint of winnow-nano to go on from")
    train.add_argument("--first-step", type=int, default=0, help="steps that --start was trained")
    train.add_argument("--synthetic", type=int, default=22_000, help="strings to synthesise")
    train.add_argument("--sentences", type=int, default=60_000, help="sentences to synthesise")
    train.add_argument("--batch-seconds", type=float, default=60.0, help="of audio, for one step")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
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
    evaluate.add_argument("--text", type=Path, help="folder of books, for the domain sentences")
    evaluate.add_argument(
        "--domains",
        default="digits,synthetic,noise",
        help="of digits, paused, synthetic, sentences, librispeech, noise (default: %(default)s)",
    )
    evaluate.add_argument("--data", type=Path, default=Path("runs/evaluate"), help="cache folder")
    evaluate.add_argument("--profiles", default="dense,balanced,fast", help="default: %(default)s")
    evaluate.add_argument("--profiles-file", type=Path, help="a TOML file of further profiles")
    evaluate.add_argument(
        "--grid", action="store_true", help="every layer and sparsity instead of profiles"
    )
    evaluate.add_argument(
        "--selection", default="attention", help="what the grid keeps frames by (%(default)s)"
    )
    evaluate.add_argument("--strings", type=int, default=200, help="at most so many per domain")
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
        domain=args.domain,
        synthetic=args.synthetic,
        sentences=args.sentences,
        batch_seconds=args.batch_seconds,
        device=args.device,
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
    from service.lab.domains import DOMAINS, Places
    from service.lab.evaluate import grid, score
    from service.model.load import load_model
    from service.profiles import Profile, check_depth, load_profiles

    if args.threads:
        torch.set_num_threads(args.threads)
    names = args.domains.split(",")
    if unknown := [name for name in names if name not in DOMAINS]:
        raise ConfigError(f"unknown domain {unknown[0]!r}; use {', '.join(DOMAINS)}")
    model = load_model(args.model)
    profiles = load_profiles(args.profiles_file, args.model)
    if args.grid:
        profiles = {p.name: p for p in grid(GRID_LAYERS, GRID_SPARSITIES, args.selection)}
        args.profiles = ",".join(profiles)
    check_depth(profiles, model.info.num_encoder_layers)
    if unknown := [name for name in args.profiles.split(",") if name not in profiles]:
        raise ConfigError(f"unknown profile {unknown[0]!r}; use {', '.join(profiles)}")
    chosen = [profiles[name] for name in args.profiles.split(",")]
    places = Places(args.corpus, args.data, args.strings, args.text)
    if args.times:
        return _times(places, model, chosen, as_json=args.json)
    rows: Rows = {}
    for name in names:
        utterances = DOMAINS[name].utterances(places)
        scores: dict[Profile, Score] = {}
        for profile in chosen:
            # Dense is dense whatever its layer: a grid measures it once.
            does = Profile("dense") if profile.is_dense else profile
            scores[does] = scores.get(does) or score(model, utterances, does)
            rows.setdefault(DOMAINS[name].title, {})[profile.name] = scores[does]
    if args.json:
        print(json.dumps({n: {p: s.wer for p, s in row.items()} for n, row in rows.items()}))
    elif args.grid:
        _print_grid(rows, chosen)
    else:
        _print_table(rows)
    return 0


def _print_table(rows: Rows) -> None:
    profiles = list(next(iter(rows.values())))
    print(f"{'domain':<46}{'words':>7}" + "".join(f"{name:>12}" for name in profiles))
    for title, row in rows.items():
        words = next(iter(row.values())).words
        print(f"{title:<46}{words:>7}" + "".join(f"{score!s:>12}" for score in row.values()))


def _print_grid(rows: Rows, profiles: Sequence[Profile]) -> None:
    """A table for each domain: layers down, sparsities across."""
    for title, row in rows.items():
        print(f"\n| {title}: layer \\ sparsity | " + " | ".join(f"{s:g}" for s in GRID_SPARSITIES))
        print("|---" * (len(GRID_SPARSITIES) + 1) + "|")
        for layer in GRID_LAYERS:
            scores = [str(row[p.name]) for p in profiles if p.layer == layer]
            print(f"| {layer} | {' | '.join(scores)} |")


def _times(
    places: Places, model: SpeechModel, profiles: Sequence[Profile], *, as_json: bool
) -> int:
    from service.lab.domains import recorded_digits
    from service.lab.times import measure, timed_digits

    strings = timed_digits(recorded_digits(places), places.strings)
    rows = {p.name: measure(model, strings, p).summary() for p in profiles}
    if as_json:
        print(json.dumps(rows))
        return 0
    print(f"{'seconds':<18}" + "".join(f"{name:>12}" for name in rows))
    for figure in next(iter(rows.values())):
        shown = (f"{row.get(figure, math.nan):>12.4g}" for row in rows.values())
        print(f"{figure:<18}" + "".join(shown))
    return 0
