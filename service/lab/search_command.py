"""`winnow search`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import ConfigError
from service.lab.arguments import (
    add_adapters,
    add_material,
    add_model,
    add_path,
    config_of,
    material_of,
    positive,
)
from service.lab.search.space import (
    Grid,
    choice_fields,
    default_grids,
    make_space,
    parse_values,
    read_space,
)
from service.threads import usable_threads

if TYPE_CHECKING:
    from service.lab.search.halving import Plan
    from service.lab.search.report import Told
    from service.lab.search.search import Found
    from service.lab.search.space import Space
    from service.lab.search.trials import Place

STATE = Path("winnow-search")
PROFILES, REPORT, JSON = "profiles.toml", "report.md", "search.json"
FIELD = "field_"  # before the names of options that are fields of a profile


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "search",
        help="the fastest profiles for a model and recordings, within budgets of errors",
        description="Tries many profiles on few recordings, the better half on twice as many, and "
        "those that are left on all; then names, for each budget of word error rate, the fastest "
        "that is shown to keep to it, and measures it on recordings that nothing was chosen on. "
        "Started again with the same command it goes on where it was stopped.",
    )
    add_material(parser.add_argument_group("recordings"), split=False)
    _add_space(parser.add_argument_group("what is tried"))
    _add_plan(parser.add_argument_group("how it is chosen"))
    how = parser.add_argument_group("how it is read")
    add_model(how)
    add_adapters(how)
    add_path(how)
    parser.add_argument(
        "--state",
        type=Path,
        default=STATE,
        metavar="DIR",
        help=f"where results are kept as they come, and {PROFILES}, {REPORT} and {JSON} are "
        "written (%(default)s)",
    )
    parser.set_defaults(run=_search)


def _add_space(group: Any) -> None:
    group.add_argument(
        "--space",
        type=Path,
        metavar="TOML",
        help="fields of a profile with lists of values, or several such tables [[grid]]; left out, "
        "with all below, some dozens of profiles that suit the model's depth",
    )
    for field in choice_fields():
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=FIELD + field.name,
            metavar="VALUES",
            help=f"values by commas (left out: {field.default or 'none'})",
        )


def _add_plan(group: Any) -> None:
    group.add_argument(
        "--budgets",
        default="0.2,0.5,1",
        metavar="POINTS",
        help="percentage points of word error rate above dense (%(default)s)",
    )
    group.add_argument(
        "--each",
        action="store_true",
        help="a budget has to hold in each domain by itself, not over all of them",
    )
    group.add_argument(
        "--fastest-by",
        choices=("work", "clock"),
        default="work",
        help="the least arithmetic, alike in every run, or the clock (%(default)s); speed is "
        "measured either way",
    )
    group.add_argument(
        "--first",
        type=positive,
        default=16,
        metavar="N",
        help="recordings of a domain that all are tried on (%(default)s)",
    )
    group.add_argument(
        "--survivors",
        type=positive,
        default=8,
        metavar="N",
        help="at most so many are tried on all recordings, and timed (%(default)s)",
    )
    group.add_argument(
        "--rounds",
        type=positive,
        default=3,
        metavar="N",
        help="how often they are timed, in turns with dense (%(default)s)",
    )


def grids_of(args: argparse.Namespace) -> list[Grid]:
    """What was asked to be tried; none: the default. Raises ConfigError for both ways at once."""
    typed = {
        field.name: parse_values(field.name, getattr(args, FIELD + field.name))
        for field in choice_fields()
        if getattr(args, FIELD + field.name) is not None
    }
    if typed and args.space:
        raise ConfigError(f"--space and --{next(iter(typed))}: give one of them")
    if args.space:
        return read_space(args.space)
    return [typed] if typed else []


def plan_of(args: argparse.Namespace) -> Plan:
    """Raises ConfigError for budgets that are no numbers above 0."""
    from service.lab.search.halving import Plan

    try:
        budgets = sorted({float(part) for part in args.budgets.split(",") if part.strip()})
    except ValueError:
        budgets = []
    if not budgets or not all(0 < budget <= 100 for budget in budgets):
        raise ConfigError(f"--budgets {args.budgets!r}: use percentage points, as in 0.2,0.5,1")
    return Plan(
        first=args.first,
        survivors=args.survivors,
        rounds=args.rounds,
        budgets=tuple(budgets),
        each=args.each,
        by_clock=args.fastest_by == "clock",
        seed=args.seed,
    )


def _search(args: argparse.Namespace) -> int:
    from service.lab.machine import about
    from service.lab.runs import How, Service
    from service.lab.search.bench import ServiceBench
    from service.lab.search.places import data_said, identity_of, places_of
    from service.lab.search.progress import Progress
    from service.lab.search.report import Told
    from service.lab.search.search import search
    from service.lab.search.splits import TEST, TRAIN
    from service.lab.search.state import State, recorded_dtype
    from service.lab.search.steady import load_steady

    grids, plan = grids_of(args), plan_of(args)
    places = places_of(*material_of(args), plan.seed)
    dtype = (recorded_dtype(args.state) if args.dtype == "auto" else None) or args.dtype
    config = replace(config_of(args, adapters=args.adapters), dtype=dtype)
    how = How(raw=args.raw, detect=args.detect, concurrency=args.concurrency)
    with Service(config, partial(load_steady, config)) as service:
        num_layers = service.info.num_encoder_layers
        space = make_space(grids or default_grids(num_layers), num_layers)
        service.prepare(space.candidates)
        identity = identity_of(service, places, space, how, plan.seed)
        train, test = places[TRAIN], places[TEST]
        try:
            with State(args.state, identity) as state, Progress(lambda: state.pace_s) as progress:
                print(_at_start(space, plan, train, test, state.num_trials), file=sys.stderr)
                bench = ServiceBench(service, state, how, progress.done)
                found = search(space, train, test, plan, bench, progress)
                known = about(args.arguments, service.info, config.threads or usable_threads())
                told = Told(known, data_said(places), space, plan)
                _write(args.state, found, told)
        except KeyboardInterrupt:
            print(
                f"winnow: what was found so far is in {args.state}; the same command goes on",
                file=sys.stderr,
            )
            raise
    return 0


def _at_start(space: Space, plan: Plan, train: list[Place], test: list[Place], known: int) -> str:
    from service.lab.search.halving import rungs
    from service.lab.search.search import first_of, named

    most = max(place.number + 1 for place in train)
    climbed = "; ".join(
        f"{rung.candidates} on {named(rung)} ({len(first_of(train, rung.num_items))})"
        for rung in rungs(len(space.candidates), most, plan.first, plan.survivors)
    )
    left_out = space.refused + space.repeated
    said = f"{len(space.candidates)} candidates"
    said += f" ({left_out} combinations left out)" if left_out else ""
    said += f": {climbed}; the chosen on {len(test)} others"
    return said + (f". {known:,} answers are known from before" if known else "")


def _write(folder: Path, found: Found, told: Told) -> None:
    from service.lab.search.profiles_file import to_toml
    from service.lab.search.report import everything, markdown, terminal

    whole = json.dumps(everything(found, told), ensure_ascii=False, indent=1) + "\n"
    (folder / JSON).write_text(whole)
    (folder / REPORT).write_text(markdown(found, told))
    (folder / PROFILES).write_text(to_toml(found, told))
    print(terminal(found, told))
    if any(choice.chosen for choice in found.choices):
        print(f"\nServe them: winnow serve --profiles-file {folder / PROFILES}")
    else:
        print(f"\nNo profile keeps to a budget: {folder / PROFILES} says so and has none")
    print(f"The whole of it: {folder / REPORT}, {folder / JSON}")
