"""`winnow train fixed` and `winnow train measure`: what gates are held against, and how they do."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from service.config import ServerConfig
from service.errors import ConfigError
from service.lab.arguments import add_material, add_model, add_path, config_of, material_of
from service.threads import usable_threads

DEFAULT_LIMIT = 8  # windows on which modules are tried


def add_fixed(ways: Any) -> None:
    parser = ways.add_parser(
        "fixed",
        help="gates that decide the same for every window: those that cost least to leave out",
        description="Leaves out one module after the other, each time the one without which the "
        "model's own text stays likeliest, and writes gates that always leave these out.",
    )
    add_material(parser.add_argument_group("recordings"))
    parser.set_defaults(split="train", limit=DEFAULT_LIMIT)
    parser.add_argument("--model", default=ServerConfig().model, help="(%(default)s)")
    parser.add_argument(
        "--targets", required=True, metavar="SHARES", help="of the modules, as in 0.1,0.2"
    )
    parser.add_argument("--threads", type=int, default=0, help="(as many as may be used)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="a new folder, one in it for each"
    )
    parser.set_defaults(run=_fixed)


def add_measure(ways: Any) -> None:
    parser = ways.add_parser(
        "measure",
        help="what gates cost in words, and what they decide",
        description="Transcribes recordings with every module and with each of several gates, and "
        "prints word error rates with paired intervals, operations saved, and how often decisions "
        "differ from window to window.",
    )
    add_material(parser.add_argument_group("recordings"))
    how = parser.add_argument_group("how")
    add_model(how)
    add_path(how)
    parser.add_argument(
        "--gates",
        type=Path,
        action="append",
        required=True,
        metavar="FOLDER",
        help="a folder of gates; may be given several times",
    )
    parser.add_argument("--out", type=Path, metavar="JSON", help="write all figures")
    parser.set_defaults(run=_measure)


def _fixed(args: argparse.Namespace) -> int:
    from dataclasses import replace

    import torch
    from tqdm import tqdm

    from service.families.whisper import Whisper
    from service.lab.gates.fixed import greedy, loss_of, opened, trials
    from service.lab.gates.study import module_names
    from service.lab.gates.windows import heard, whole_windows
    from service.model.checkpoint import load_checkpoint
    from service.model.gates import constant, num_modules, write_gates
    from service.model.operators.choose import plain_operators

    targets = _targets(args.targets)
    try:
        args.out.mkdir()
    except OSError as error:
        raise ConfigError(f"--out {args.out}: {error.strerror}; name a new folder") from None
    torch.set_num_threads(args.threads or usable_threads())
    material, domains = material_of(args)
    items = whole_windows([item for domain in domains for item in material.items(domain)])
    said = heard(args.model, items, args.out)
    if not said:
        raise ConfigError("there is no recording of at most 30 s that the model reads to its end")
    model = Whisper(load_checkpoint(args.model, "cpu", operators=plain_operators(torch.float32)))
    weights = model.checkpoint.weights
    dims, count = weights.dims, num_modules(weights.dims)
    if round(min(targets) * count) == 0:
        raise ConfigError(
            f"--targets {min(targets):g} of {count} modules is none; use {1 / count:.2g} or more"
        )
    loss = loss_of(weights, [one.example(model) for one in said])
    num = max(1, round(max(targets) * count))
    with tqdm(total=trials(count, num), desc="trying", unit="trial", disable=None) as bar:
        chosen = greedy(loss, count, num, bar.update)
    names = module_names(dims)
    print(f"loss {loss(()):.3f} with all {count} modules")
    for module, found in chosen:
        print(f"loss {found:.3f} also without {names[module]}")
    for target in targets:
        first = chosen[: round(target * count)]
        modules = opened(dims, [one for one, _ in first])
        gates = replace(
            constant(model.info.name, dims, modules, target), norm_D=weights.encoder.norm.weight
        )
        folder = args.out / f"{target:g}"
        folder.mkdir()
        write_gates(gates, folder)
    return 0


def _targets(text: str) -> list[float]:
    try:
        targets = [float(one) for one in text.split(",")]
    except ValueError:
        targets = []
    if not targets or not all(0 < one < 1 for one in targets):
        raise ConfigError(f"--targets {text}: use numbers between 0 and 1, as in 0.1,0.2")
    if len({f"{one:g}" for one in targets}) < len(targets):
        raise ConfigError(f"--targets {text}: one of them is there twice")
    return targets


def _measure(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from service.lab.evaluate import DENSE
    from service.lab.gates.study import HEAD, Gated, decisions, line, to_json
    from service.lab.outcomes import figures
    from service.lab.runs import How, Service
    from service.model.checkpoint import load_checkpoint
    from service.model.gates import read_gates
    from service.profiles import Profile

    named = {_name(folder): read_gates(folder) for folder in args.gates}
    if len(named) < len(args.gates):
        raise ConfigError("--gates: two of these folders are called alike; rename one")
    material, domains = material_of(args)
    config = config_of(args)

    def load() -> Gated:
        torch.set_num_threads(config.threads or usable_threads())
        return Gated(load_checkpoint(config.model, config.device, config.dtype), named)

    how = How(args.raw, args.detect, concurrency=args.concurrency)
    written: dict[str, Any] = {}
    with Service(config, load) as service:
        model = service.model
        assert isinstance(model, Gated)
        dims = model.checkpoint.weights.dims
        for domain in domains:
            items, runs, found = material.items(domain), {}, {}
            print(f"{domain.name}, {len(items)} recordings\n\n{HEAD}")
            total = len(items) * (1 + len(named))
            with tqdm(total=total, desc=domain.name, unit="file", disable=None) as bar:
                for name in (DENSE, *named):
                    # A profile without gates would be dense, and its texts never read again.
                    gates = named[name].target if name in named else 0.0
                    profile = Profile(name, gates=gates)
                    runs[name] = service.run(items, profile, how, bar.update)
                    if model.decided.get(name):  # nothing, where nobody speaks
                        found[name] = decisions(dims, model.decided[name])
                        model.decided[name].clear()
                    some = figures(items, runs, DENSE, seed=material.seed)
                    print(line(name, some[-1], found.get(name)), flush=True)
            written[domain.name] = to_json(some, found)
            if args.out:
                args.out.write_text(json.dumps(written, indent=1) + "\n")
    return 0


def _name(folder: Path) -> str:
    """As a profile may be called: of a folder called for its target alone also the one around."""
    whole = folder.absolute()
    return f"{whole.parent.name}-{whole.name}" if whole.name[0].isdigit() else whole.name
