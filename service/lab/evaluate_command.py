"""`winnow evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.lab.arguments import (
    add_adapters,
    add_how,
    add_material,
    add_profiles,
    config_of,
    material_of,
    profiles_of,
)
from service.threads import usable_threads

if TYPE_CHECKING:
    from collections.abc import Sequence


def add(subparsers: Any) -> None:
    evaluate = subparsers.add_parser(
        "evaluate",
        help="word error rate and speed of profiles on recordings",
        description="Transcribes recordings under several profiles, through the path that the "
        "service takes, and prints corpus word error rate after Whisper's normaliser with paired "
        "95% intervals against dense, and how often texts went wrong, as a table.",
    )
    add_material(evaluate.add_argument_group("recordings"))
    which = evaluate.add_argument_group("profiles")
    add_profiles(which)
    add_adapters(which)
    add_how(evaluate.add_argument_group("how"))
    evaluate.add_argument(
        "--out", type=Path, metavar="JSON", help="write all figures, those of each file among them"
    )
    evaluate.add_argument("--texts", action="store_true", help="with what was said and read")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from service.families.load import load_served
    from service.lab.evaluate import evaluate
    from service.lab.machine import about
    from service.lab.report import table, to_json
    from service.lab.runs import How, Service

    material, domains = material_of(args)
    profiles = profiles_of(args)
    config = config_of(args, adapters=args.adapters)
    how = How(args.raw, args.detect, args.times, args.concurrency)
    with Service(config, partial(load_served, config)) as service:
        service.prepare(profiles)
        results = []
        found = about(args.arguments, service.info, config.threads or usable_threads())
        for result in evaluate(service, material, domains, profiles, how, num_rounds=args.speed):
            results.append(result)
            # Written after each domain: what was measured survives an interruption.
            if args.out:
                known = {**found, "profiles": {p.name: p.description for p in profiles}}
                whole = to_json(results, known, texts=args.texts)
                args.out.write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n")
            print(table(results[-1:]) if len(results) == 1 else _without_head(results[-1:]))
            sys.stdout.flush()
    return 0


def _without_head(results: Sequence[Any]) -> str:
    from service.lab.report import table

    return "\n".join(table(results).splitlines()[2:])
