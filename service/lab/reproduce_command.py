"""`winnow reproduce`: what papers claim, tried again on anyone's model and recordings."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.config import ServerConfig
from service.errors import ConfigError
from service.lab import reproduce_ctc_command
from service.lab.arguments import (
    add_material,
    add_model,
    add_recordings,
    config_of,
    material_of,
    positive,
)
from service.threads import usable_threads

if TYPE_CHECKING:
    from service.lab.reproduce.eas.data import Source
    from service.lab.reproduce.eas.plan import Size
    from service.model.protocol import ModelInfo

QUICK_RECORDINGS = 4
SCREENED = 16


def add(subparsers: Any) -> None:
    reproduce = subparsers.add_parser(
        "reproduce",
        help="try a paper's claims again, on any model and recordings",
        description="Tries a paper's claims again: the same experiments on your model and "
        "recordings, and what they say of each claim, as a report.",
    )
    papers = reproduce.add_subparsers(title="papers", required=True, metavar="PAPER")
    eas = papers.add_parser(
        "eas",
        help="Early Attentive Sparsification, arXiv 2506.15912",
        description="Early Attentive Sparsification (arXiv 2506.15912): the search over layer and "
        "sparsity, the runtime by part, what the search chose on other recordings; then ways to "
        "keep as many frames, aggregations, repetition, noise and other languages. Writes "
        "report.html, report.json and plots, and goes on where it was stopped.",
    )
    add_data(eas.add_argument_group("recordings"))
    _add_size(eas.add_argument_group("how much"))
    add_model(eas.add_argument_group("how"))
    eas.set_defaults(run=_eas, pack=False, split="test", noise="")
    bits = papers.add_parser(
        "bits",
        help="Attention or Convolution, arXiv 2311.02772",
        description="Attention or Convolution (arXiv 2311.02772): rounds the model's weights to 8 "
        "and 4 bits, by kind of module, alone and together, and says what it costs: how far the "
        "next token's distribution moves, and words. Writes report.html and report.json, and goes "
        "on where it was stopped.",
    )
    add_material(bits.add_argument_group("recordings"))
    how = bits.add_argument_group("how")
    how.add_argument("--model", default=ServerConfig().model, help="(%(default)s)")
    how.add_argument("--threads", type=int, default=0, help="on a CPU (as many as may be used)")
    how.add_argument(
        "--screen",
        type=positive,
        default=SCREENED,
        metavar="N",
        help="recordings of which the first 30 s are looked at token by token (%(default)s)",
    )
    how.add_argument("--out", type=Path, required=True, metavar="DIR", help="where all goes")
    bits.set_defaults(run=_bits)
    reproduce_ctc_command.add(papers)


def add_data(group: Any) -> None:
    """Recordings to choose on and to report on."""
    add_recordings(
        group,
        domains="folders of the corpus, as in librispeech,german: the first is searched (its split "
        "train) and reported on (split test), the others are reported on; each alone and packed "
        "to full windows",
        manifest="recordings of your own, as winnow evaluate takes them; the first is reported on "
        "in full where there is no --domains",
    )
    group.add_argument(
        "--search",
        type=Path,
        metavar="FILE",
        help="a manifest to choose on, instead of rows of split train",
    )
    group.add_argument(
        "--snr",
        metavar="DB",
        help="noise of the corpus at so many dB, as in 10,5,0 (10 where the corpus has noise)",
    )


def _add_size(group: Any) -> None:
    group.add_argument("--out", type=Path, required=True, metavar="DIR", help="where all goes")
    group.add_argument(
        "--limit", type=positive, metavar="N", help="at most N recordings of each set (all)"
    )
    group.add_argument(
        "--minutes",
        type=positive,
        metavar="N",
        help="as many recordings as about so many minutes allow, worked out at the start",
    )
    group.add_argument(
        "--quick",
        action="store_true",
        help=f"one layer, two sparsities, {QUICK_RECORDINGS} recordings: shows that it works, "
        "decides nothing",
    )
    group.add_argument(
        "--layers", metavar="N,N", help="to search (the first three, the middle, three quarters)"
    )
    group.add_argument("--sparsities", metavar="S,S", help="to search (0.2,0.4,0.5,0.6,0.8)")
    group.add_argument("--batches", metavar="N,N", help="to time (1,2,4,8)")
    group.add_argument("--rounds", type=positive, metavar="N", help="of timing (3)")


def _eas(args: argparse.Namespace) -> int:
    import torch

    from service.families.load import load_served
    from service.lab.breakdown import timeable
    from service.lab.drawing import new_figure
    from service.lab.machine import about
    from service.lab.reproduce.claim import listed
    from service.lab.reproduce.eas import report
    from service.lab.reproduce.eas.experiments import Lab, run
    from service.lab.reproduce.record import Record
    from service.lab.runs import Service

    new_figure(1, 1)  # hours of texts, and then nothing to draw with?
    began = time.perf_counter()
    config = config_of(args)
    model = timeable(load_served(config))
    size, source = _size(args, model.info.num_encoder_layers), _source(args, model.info)
    args.out.mkdir(parents=True, exist_ok=True)
    threads = config.threads or usable_threads()
    found = about(args.arguments, model.info, threads)

    def hand_over() -> Any:
        torch.set_num_threads(threads)  # it is a setting of each thread
        return model

    with Service(config, hand_over) as service:
        lab = Lab(
            service=service,
            model=model,
            record=Record(args.out / "parts"),
            made_by={"winnow": found["winnow"], "model": found["model"], "seed": args.seed},
            machine=found["machine"],
            concurrency=args.concurrency,
            say=partial(print, file=sys.stderr, flush=True),
        )
        limit = args.limit or (QUICK_RECORDINGS if args.quick else None)
        budget_s = 60.0 * args.minutes if args.minutes else None
        results, gathered = run(lab, source, size, limit=limit, budget_s=budget_s)
    claims = report.write(args.out, results, gathered, found)
    print(listed(claims))
    print(f"{args.out / 'report.html'} ({(time.perf_counter() - began) / 60:.1f} minutes)")
    return 0


def _bits(args: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from service.families.whisper import Whisper
    from service.lab.machine import about
    from service.lab.packing import evenly
    from service.lab.reproduce.bits import report, study
    from service.lab.reproduce.bits.rounding import KINDS, num_weights
    from service.lab.reproduce.claim import listed
    from service.lab.reproduce.record import Record, digest
    from service.lab.runs import How
    from service.model.checkpoint import load_checkpoint
    from service.model.operators.choose import plain_operators

    threads = args.threads or usable_threads()
    torch.set_num_threads(threads)
    material, domains = material_of(args)
    plain = plain_operators(torch.float32)
    model = Whisper(load_checkpoint(args.model, "cpu", operators=plain))
    items = [item for domain in domains for item in material.items(domain)]
    args.out.mkdir(parents=True, exist_ok=True)
    config = ServerConfig(model=args.model, device="cpu", dtype="float32", threads=threads)
    record = Record(args.out / "parts")
    found = about(args.arguments, model.info, threads)
    key = {"winnow": found["winnow"], "model": found["model"], "items": digest(items)}
    variants, wanted = study.variants(), study.worth_reading()
    moved = {}
    total = len(variants) + 1 + len(wanted)
    with tqdm(total=total, desc="variants", unit="variant", leave=False, disable=None) as bar:
        screen = None
        for bits in variants:
            part = {**key, "moved": bits.name, "screen": args.screen}
            if (known := record.read(part)) is None:
                screen = screen or study.Screen(model, evenly(items, args.screen))
                known = asdict(screen.moved(bits))
                record.write(part, known)
            moved[bits] = study.Moved(**{name: tuple(some) for name, some in known.items()})
            bar.update()
        figures = study.read(model, items, wanted, config, record, key, How(), bar.update)
    sizes = {kind: num_weights(model.checkpoint.weights, kind) for kind in KINDS}
    claims = report.write(args.out, report.Found(moved, figures, sizes), found)
    print(listed(claims))
    print(args.out / "report.html")
    return 0


def _size(args: argparse.Namespace, num_layers: int) -> Size:
    """Raises ConfigError for layers that the model has not, and shares that are none."""
    from dataclasses import replace

    from service.lab.reproduce.eas.plan import size_of
    from service.profiles import check_depth

    size = size_of(num_layers, quick=args.quick)
    size = replace(
        size,
        layers=_numbers(args.layers, "--layers", int) or size.layers,
        sparsities=_numbers(args.sparsities, "--sparsities", float) or size.sparsities,
        batches=_numbers(f"1,{args.batches}" if args.batches else None, "--batches", int)
        or size.batches,
        rounds=args.rounds or size.rounds,
    )
    check_depth({profile.name: profile for profile in size.grid}, num_layers)
    if min(size.batches) < 1:
        raise ConfigError(f"--batches {args.batches}: use whole numbers from 1 on")
    return size


def _numbers(text: str | None, option: str, kind: type[Any]) -> tuple[Any, ...]:
    """Ascending, each once; () where there are none."""
    try:
        return tuple(sorted({kind(one) for one in (text or "").split(",") if one}))
    except ValueError:
        raise ConfigError(f"{option} {text!r}: use numbers, as in 1,2,3") from None


def _source(args: argparse.Namespace, info: ModelInfo) -> Source:
    from dataclasses import replace

    from service.lab.manifest import read_manifest
    from service.lab.material import NOISE, Domain
    from service.lab.reproduce.eas.data import Source

    material, domains = material_of(args)
    material = replace(material, limit=None)
    search, search_domain = replace(material, split="train"), domains[0]
    if args.search:
        search_domain = Domain(args.search.stem)
        rows = read_manifest(args.search, args.language)
        search = replace(material, folders={search_domain.folder: rows}, split="all")
    has_noise = NOISE in material.folders
    levels = _numbers(args.snr if args.snr is not None else "10" * has_noise, "--snr", float)
    return Source(
        material=material,
        domains=tuple(domains),
        search=search,
        search_domain=search_domain,
        levels=levels[::-1],
        languages=frozenset(info.languages),
    )
