"""`winnow compress`: a model made smaller, as a folder that every command takes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.config import ServerConfig
from service.errors import ConfigError, WinnowError
from service.lab.arguments import add_material, material_of
from service.model.formats.names import LOW_RANK
from service.threads import usable_threads

if TYPE_CHECKING:
    from torch import Tensor

    from service.lab.compress.low_rank import Factors, Spread
    from service.model.formats.source import Source

DEFAULT_LIMIT = 100  # recordings, as published


def add(subparsers: Any) -> None:
    compress = subparsers.add_parser(
        "compress",
        help="make a model smaller, from what it computes on recordings",
        description="Makes a model smaller and writes it as a folder, which --model takes.",
    )
    ways = compress.add_subparsers(title="ways", required=True, metavar="WAY")
    parser = ways.add_parser(
        "low-rank",
        help="the encoder's products as two of fewer dimensions (LiteASR, arXiv 2502.20583)",
        description="Runs the encoder over recordings, finds the directions in which each "
        "product's outputs vary, and keeps as many as hold a share theta of the variance: two "
        "smaller products instead of one, where that is less work. Text is not looked at. Writes a "
        "folder in the layout of the published lite-whisper models, with what was done in "
        f"{LOW_RANK}.",
    )
    add_material(parser.add_argument_group("recordings"))
    parser.set_defaults(split="train", limit=DEFAULT_LIMIT)
    how = parser.add_argument_group("how")
    how.add_argument("--model", default=ServerConfig().model, help="(%(default)s)")
    how.add_argument(
        "--theta",
        default="accurate",
        metavar="THETA",
        help="accurate (0.999), balanced (0.99 of attention's variance, 0.999 of the feed-forward "
        "part's), fast (0.99, 0.995), or a number for both (%(default)s)",
    )
    how.add_argument("--threads", type=int, default=0, help="on a CPU (as many as may be used)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="what is written; must be new"
    )
    parser.set_defaults(run=_low_rank)


def _low_rank(args: argparse.Namespace) -> int:
    import torch

    from service.lab.compress.low_rank import THETAS, Theta, compressed, spreads
    from service.model.checkpoint import load_checkpoint
    from service.model.formats.find import find_model
    from service.model.operators.choose import plain_operators

    theta = THETAS.get(args.theta) or Theta(*[_share(args.theta)] * 2)
    if args.out.exists():
        raise ConfigError(f"--out {args.out}: is there already; name a new folder")
    if not args.out.absolute().parent.is_dir():
        raise ConfigError(f"--out {args.out}: there is no folder to write it in")
    torch.set_num_threads(args.threads or usable_threads())
    source = find_model(args.model).source
    if source.settings.get("low_rank_config"):
        raise ConfigError(f"--model {args.model}: its products are factors already")
    # In float32 by torch's own products: what is factored are the weights as they are stored.
    plain = plain_operators(torch.float32)
    checkpoint = load_checkpoint(args.model, "cpu", operators=plain)
    seen = spreads(checkpoint.weights.encoder, _windows(args, source.dims.num_mels))
    stored = dict(source.tensors())
    state, layers = compressed(stored.items(), seen, theta)
    if not any(layers):
        raise WinnowError(
            f"nothing was written: to keep {args.theta} of the variance no product of "
            f"{checkpoint.name} needs so few dimensions that two would be less work; try a "
            "smaller --theta"
        )
    before, after = _encoder_parameters(stored), _encoder_parameters(state)
    facts = {
        "way": "low rank (arXiv 2502.20583)",
        "of": checkpoint.name,
        "theta": args.theta,
        "shares": {"attention": theta.attention, "feed_forward": theta.mlp},
        "recordings": {"domains": args.domains, "split": args.split, "limit": args.limit},
        "frames": seen[0]["q_proj"].count,
        "parameters": {"before": before, "after": after},
        "products": [
            {name: {"rank": made.rank, "kept": made.kept} for name, made in layer.items()}
            for layer in layers
        ],
    }
    _write(args.out, source, state, layers, facts)
    print(_table(seen, layers))
    print(
        f"\n{args.out}: the encoder has {after / 1e6:.1f} of {before / 1e6:.1f} million "
        f"parameters\nnow measure it: winnow evaluate --model {args.out} ..."
    )
    return 0


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise ConfigError(
            f"--theta {text}: use accurate, balanced, fast, or a number between 0 and 1"
        )
    return share


def _windows(args: argparse.Namespace, num_mels: int) -> Iterator[tuple[Tensor, int]]:
    """Each recording's windows of 30 s, and how many of the encoder's frames hear it."""
    from tqdm import tqdm

    from service.audio.mel import log_mel
    from service.lab.packing import to_float
    from service.types import WINDOW_SAMPLES

    material, domains = material_of(args)
    items = [item for domain in domains for item in material.items(domain)]
    for item in tqdm(items, desc="encoding", unit="recording", leave=False, disable=None):
        samples = to_float(item.pcm)
        for first in range(0, len(samples), WINDOW_SAMPLES):
            window = samples[first : first + WINDOW_SAMPLES]
            mel_1FT = log_mel([window], num_mels)
            num_frames = mel_1FT.shape[-1] // 2
            yield mel_1FT, max(1, round(len(window) / WINDOW_SAMPLES * num_frames))


def _write(
    out: Path,
    source: Source,
    state: Mapping[str, Tensor],
    layers: Sequence[Mapping[str, Factors]],
    facts: Mapping[str, object],
) -> None:
    """Beside its place first: a folder that is there is whole."""
    import tempfile
    from dataclasses import replace

    from service.model.formats.cache import write_hub_folder
    from service.model.formats.hub_folder import LITE

    ranks = [{name: made.rank for name, made in layer.items()} for layer in layers]
    more = {"model_type": LITE, "low_rank_config": ranks}
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.absolute().parent) as work:
        made = Path(work) / "new"
        write_hub_folder(replace(source, tensors=lambda: iter(state.items())), made, more)
        text = json.dumps(facts, indent=1) + "\n"
        (made / LOW_RANK).write_text(text, encoding="utf-8")
        made.rename(out)


def _encoder_parameters(state: Mapping[str, Tensor]) -> int:
    return sum(
        tensor.numel() for name, tensor in state.items() if name.startswith("model.encoder.")
    )


def _table(seen: Sequence[Mapping[str, Spread]], layers: Sequence[Mapping[str, Factors]]) -> str:
    names = list(seen[0])
    lines = [f"| layer | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for number, (products, made) in enumerate(zip(seen, layers, strict=True), start=1):
        cells = [
            f"{made[name].rank} of {len(products[name].sums)}" if name in made else "dense"
            for name in names
        ]
        lines.append(f"| {number} | {' | '.join(cells)} |")
    return "\n".join(lines)
