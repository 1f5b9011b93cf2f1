"""What the lab's commands are told alike: recordings, profiles, and how they are read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.config import ServerConfig, load_config
from service.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.lab.material import Domain, Material
    from service.profiles import Profile

# torch takes seconds to import and help should not: what needs it is imported on running.
DEFAULT_PROFILES = "dense,balanced,fast"
GRID_LIKE = "balanced"


DOMAINS = (
    "folders of the corpus, as in librispeech,german; NAME-packed joins utterances of a "
    "speaker, 0.3 s between them, to windows of 18 to 30 s; NAME@10dB has noise in it; noise "
    "is noises and silence alone"
)
MANIFEST = (
    "recordings of your own, a domain named after the file: TSV with a header (path, "
    "transcript, perhaps language, speaker, split) or JSONL (audio_filepath, text); may be "
    "given several times"
)


def add_recordings(group: Any, *, domains: str = DOMAINS, manifest: str = MANIFEST) -> None:
    """Where recordings are; `domains`, `manifest`: what these two mean to the command."""
    group.add_argument(
        "--corpus",
        type=Path,
        metavar="DIR",
        help="a folder with manifest.tsv; its folders are domains, and noise is taken from it",
    )
    group.add_argument("--domains", default="", metavar="NAMES", help=domains)
    group.add_argument(
        "--manifest", type=Path, action="append", default=[], metavar="FILE", help=manifest
    )
    group.add_argument(
        "--language", default="en", help="of a manifest's rows that name none (%(default)s)"
    )
    group.add_argument("--seed", type=int, default=0, help="of noise and intervals (%(default)s)")


def add_material(group: Any, *, split: bool = True) -> None:
    """`split`: whether one is asked for, or the command takes them by itself."""
    add_recordings(group)
    group.add_argument("--pack", action="store_true", help="each --manifest also packed")
    group.add_argument(
        "--noise",
        default="",
        metavar="DB",
        help="every domain also with noise of the corpus, at so many dB, as in 10,5,0",
    )
    if split:
        group.add_argument(
            "--split", choices=("train", "test", "all"), default="test", help="(%(default)s)"
        )
    else:
        group.set_defaults(split="train")
    group.add_argument(
        "--limit", type=positive, metavar="N", help="at most N of a domain, evenly over speakers"
    )


def add_profiles(group: Any) -> None:
    group.add_argument(
        "--profiles",
        metavar="NAMES",
        help=f"({DEFAULT_PROFILES}, or with --grid none); dense is always added",
    )
    group.add_argument(
        "--profiles-file", type=Path, metavar="TOML", help="a file of further profiles"
    )
    group.add_argument(
        "--grid",
        metavar="LAYERS:SPARSITIES",
        help="a profile for each pair, as in 1,2,3:0.4,0.5",
    )
    group.add_argument(
        "--like",
        default=GRID_LIKE,
        metavar="NAME",
        help="the profile whose other choices the grid's have (%(default)s)",
    )


def add_model(group: Any) -> None:
    """The model, on what it runs, and how many recordings at once."""
    add_weights(group)
    group.add_argument(
        "--concurrency",
        type=positive,
        default=16,
        metavar="N",
        help="recordings in flight (%(default)s)",
    )


def add_weights(group: Any) -> None:
    """The model, and on what it runs: what `config_of` reads."""
    group.add_argument("--model", default=ServerConfig().model, help="(%(default)s)")
    group.add_argument("--device", default="auto", help="auto (the default), cpu, cuda or cuda:N")
    group.add_argument(
        "--dtype", default="auto", help="auto (the default), int8, bfloat16, float16 or float32"
    )
    group.add_argument("--threads", type=int, default=0, help="on a CPU (as many as may be used)")


def add_path(group: Any) -> None:
    """What of the service's path is left out."""
    group.add_argument(
        "--raw",
        action="store_true",
        help="the decoder's first text as it is: no VAD, no guard, no fallback",
    )
    group.add_argument(
        "--detect", action="store_true", help="detect each language instead of giving it"
    )


def add_how(group: Any) -> None:
    add_model(group)
    add_path(group)
    group.add_argument(
        "--times", action="store_true", help="also how far word times are from those of dense"
    )
    group.add_argument(
        "--speed",
        type=positive,
        default=0,
        metavar="ROUNDS",
        help="time so many rounds more, in which the profiles take turns",
    )


def add_adapters(group: Any) -> None:
    """For commands that run profiles, which may name what is in them."""
    group.add_argument(
        "--adapters",
        metavar="FOLDERS",
        help="by commas: what winnow compress and winnow train wrote, for profiles that name it",
    )


def config_of(args: argparse.Namespace, **more: Any) -> ServerConfig:
    """The settings that `add_model` asks for, checked as those of a server are."""
    return load_config(
        {},
        model=args.model,
        device=args.device,
        dtype=args.dtype,
        threads=args.threads,
        **more,
    )


def positive(text: str) -> int:
    """A whole number from 1 on, as argparse takes it."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def material_of(args: argparse.Namespace) -> tuple[Material, list[Domain]]:
    """Raises ConfigError where nothing is asked for."""
    from dataclasses import replace

    from service.lab.manifest import read_manifest
    from service.lab.material import NOISE, Domain, Material, of_corpus, parse_domain

    names = [name for name in args.domains.split(",") if name]
    if not names and not args.manifest:
        raise ConfigError("nothing to evaluate on: give --corpus and --domains, or --manifest")
    if names and not args.corpus:
        raise ConfigError("--domains are of a corpus: give --corpus")
    folders = of_corpus(args.corpus) if args.corpus else {}
    domains = [parse_domain(name) for name in names]
    for path in args.manifest:
        if path.stem in folders:
            raise ConfigError(f"--manifest {path}: there is a domain {path.stem!r} already")
        folders[path.stem] = read_manifest(path, args.language)
        domains.append(Domain(path.stem))
        if args.pack:
            domains.append(Domain(path.stem, packed=True))
    try:
        levels = [float(level) for level in args.noise.split(",") if level]
    except ValueError:
        raise ConfigError(f"--noise {args.noise!r}: use numbers of dB, as in 10,5,0") from None
    domains += [
        replace(domain, snr_db=level)
        for level in levels
        for domain in domains
        if domain.folder != NOISE and domain.snr_db is None
    ]
    return Material(folders, args.split, args.limit, args.seed), list(dict.fromkeys(domains))


def profiles_of(args: argparse.Namespace) -> list[Profile]:
    """Dense first. Raises ConfigError for a name that no profile has."""
    from service.lab.evaluate import DENSE, grid
    from service.model.formats.find import shipped_as
    from service.profiles import load_profiles

    known = load_profiles(args.profiles_file, shipped_as(args.model))
    default = "" if args.grid else DEFAULT_PROFILES
    asked = default if args.profiles is None else args.profiles
    names = list(dict.fromkeys([DENSE, *(name for name in asked.split(",") if name)]))
    profiles = [named(known, name) for name in names]
    return profiles + (grid(args.grid, named(known, args.like)) if args.grid else [])


def named(known: Mapping[str, Profile], name: str) -> Profile:
    if name not in known:
        raise ConfigError(f"unknown profile {name!r}; use {', '.join(known)}")
    return known[name]
