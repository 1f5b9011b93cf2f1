"""`winnow explain`."""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import ConfigError
from service.lab.arguments import add_adapters, add_weights, config_of, named

if TYPE_CHECKING:
    from service.explain.explanation import Explanation
    from service.profiles import Profile

SUFFIXES = (".html", ".png")


def add(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="a picture of what a profile keeps of a recording",
        description="Draws what a profile makes of a recording: the log-mel with the frames that "
        "were kept, merged and dropped, the attention that each receives, the words where they "
        "were said, and where they are not dense's. As one HTML file that needs nothing else, or "
        "as PNG.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a recording")
    parser.add_argument("--profile", default="balanced", metavar="NAME", help="(%(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        action="append",
        metavar="X",
        help="X.html or X.png, perhaps both (FILE-PROFILE.html, in the current folder); a PNG of "
        "more than 4 windows goes on in X-2.png",
    )
    parser.add_argument(
        "--audio",
        action="store_true",
        help="put the recording itself into the HTML, to be heard with the picture",
    )
    parser.add_argument(
        "--profiles-file", type=Path, metavar="TOML", help="a file of further profiles"
    )
    parser.add_argument("--language", help="a code or an English name; left out, it is detected")
    parser.add_argument(
        "--no-vad", action="store_true", help="do not cut at silence, nor leave it out"
    )
    add_weights(parser)
    add_adapters(parser)
    parser.set_defaults(run=_explain)


def _explain(args: argparse.Namespace) -> int:
    from service.model.formats.find import shipped_as
    from service.profiles import load_profiles

    profile = named(load_profiles(args.profiles_file, shipped_as(args.model)), args.profile)
    outs = args.out or [Path(f"{args.file.stem}-{profile.name}.html")]
    _check(args, outs)
    explanation = _explained(args, profile)
    for out in outs:
        try:
            written = _write(explanation, out, audio=args.audio)
        except OSError as error:
            raise ConfigError(f"--out {out} cannot be written: {error.strerror}") from error
        for path in written:
            print(f"wrote {path}")
    return 0


def _check(args: argparse.Namespace, outs: list[Path]) -> None:
    """Everything that is wrong with what was asked, before a model is loaded."""
    if not args.file.is_file():
        raise ConfigError(f"{args.file}: there is no such file")
    for out in outs:
        if out.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"--out {out}: use a name that ends in {' or '.join(SUFFIXES)}")
        if not out.parent.is_dir():
            raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    pages = any(out.suffix.lower() == ".html" for out in outs)
    if args.audio and not pages:
        raise ConfigError("--audio is for HTML: a PNG cannot be heard")
    if any(out.suffix.lower() == ".png" for out in outs):
        from service.explain.plot import check_installed

        check_installed()


def _explained(args: argparse.Namespace, profile: Profile) -> Explanation:
    from service.explain.explanation import explain
    from service.families.load import load_served
    from service.lab.runs import Service

    # What is wrong with the recording is said once; the engine's log is for a server.
    logging.getLogger("service").addHandler(logging.NullHandler())
    config = config_of(args, adapters=args.adapters)
    print(f"reading {args.file} under {profile.name} and dense ...", file=sys.stderr)
    with Service(config, partial(load_served, config)) as service, args.file.open("rb") as source:
        service.prepare([profile])
        ours, dense = service.explain(source, profile, args.language, vad=not args.no_vad)
    return explain(args.file.name, profile, ours, dense)


def _write(explanation: Explanation, out: Path, *, audio: bool) -> list[Path]:
    if out.suffix.lower() == ".html":
        from service.explain.html import to_html

        out.write_text(to_html(explanation, audio=audio), encoding="utf-8")
        return [out]
    from service.explain.plot import to_png

    return to_png(explanation, out)
