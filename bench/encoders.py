"""Other weights of the encoder, side by side: what they take, multiply and save of time.

    python -m bench.encoders --model whisper-base --adapters base-accurate --profiles-file own.toml
    python -m bench.encoders --shape turbo --rank 384

One window of 30 s; the profiles take turns, and the table gives medians with the least and most,
and the ratio to dense. `--shape` draws weights at random: speed and memory depend on shapes, not on
values; with `--rank` there are factors of that rank for every product too, and the profiles are
made of all there is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bench.device import await_device, where
from bench.progress import say
from bench.shapes import write_shape
from service.errors import ConfigError
from service.families.load import load_model
from service.families.whisper import Whisper
from service.lab.arguments import add_profiles, profiles_of
from service.lab.compress.low_rank import ATTENTION, MLP, parameter
from service.lab.search.work import dims_of, encoding, shares_of, window_of
from service.model.formats.cache import write_safetensors
from service.model.formats.hub_folder import LITE, SAFETENSORS, read_hub_folder
from service.model.formats.names import LOW_RANK
from service.model.operators.factors import num_weights
from service.model.protocol import SpeechModel
from service.model.weights import EncoderWeights, products_of
from service.profiles import BUILT_IN, Profile

THETA = "random"
HEAD = "| profile | encoder's products, million weights | MB | G operations | ms | times dense |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--model", default="whisper-base", help="(%(default)s)")
    what.add_argument("--shape", help="tiny, base, ..., turbo, large: random weights of its shape")
    parser.add_argument("--rank", type=int, help="of factors, with --shape (none)")
    parser.add_argument("--adapters", default="", metavar="FOLDERS", help="by commas")
    add_profiles(parser)
    parser.add_argument("--dtype", default="auto", help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="torch's (its choice)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.shape:
        model, folders = load_model(args.model, "cpu", args.dtype), args.adapters.split(",")
        run(model, profiles_of(args), [folder for folder in folders if folder], args.rounds)
        return
    with tempfile.TemporaryDirectory() as work:
        folder = write_shape(Path(work) / args.shape, args.shape)
        folders = [str(write_factors(folder, args.rank))] if args.rank else []
        model = load_model(str(folder), "cpu", args.dtype)
        run(model, of_shape(bool(args.rank)), folders, args.rounds)


def of_shape(factored: bool) -> list[Profile]:
    """Dense, and half the frames after layer 1, by the model's own weights and by the others."""
    ways: dict[str, tuple[str, int]] = {"": ("", 0), "4bits": ("", 4)}
    if factored:
        ways |= {"factors": (THETA, 0), "factors-4bits": (THETA, 4)}
    return [
        replace(profile, name="-".join(filter(None, (name, way))), low_rank=low_rank, bits=bits)
        for name, profile in (("", BUILT_IN["dense"]), ("half", BUILT_IN["turbo"]))
        for way, (low_rank, bits) in ways.items()
        if name or way
    ]


def run(
    model: SpeechModel, profiles: Sequence[Profile], adapters: Sequence[str], rounds: int
) -> None:
    if not isinstance(model, Whisper):
        raise ConfigError(f"the model {model.info.name} has no encoder of Whisper's")
    compared = [BUILT_IN["dense"], *(p for p in profiles if not p.is_dense)]
    model.prepare(compared, adapters)
    info = model.info
    mel_1FT = torch.randn(1, info.num_mels, 3000, generator=torch.Generator().manual_seed(0))
    times: dict[str, list[float]] = {profile.name: [] for profile in compared}
    kept: dict[str, int] = {}
    for number in range(rounds + 1):
        say(f"round {number} of {rounds}" if number else "warm-up")
        for profile in compared:
            began = time.perf_counter()
            (encoded,) = model.encode(mel_1FT, [profile])
            await_device(model.checkpoint.device)
            if number:
                times[profile.name].append(1000 * (time.perf_counter() - began))
            kept[profile.name] = len(encoded.states_TD)
    print(f"{info.name}, weights in {info.weight_dtype}, {where(model.checkpoint.device)}")
    print(f"\n{HEAD}\n{'|---' * 6}|")
    dense = statistics.median(times["dense"])
    for profile in compared:
        took = times[profile.name]
        print(
            f"| {profile.name} | {_size(model.encoder_of(profile))} "
            f"| {_operations(model, profile, kept[profile.name]) / 1e9:.1f} "
            f"| {statistics.median(took):.0f} ({min(took):.0f} to {max(took):.0f}) "
            f"| {dense / statistics.median(took):.2f} |"
        )


def _size(weights: EncoderWeights) -> str:
    """Millions of weights, and what they take."""
    products = [product for layer in weights.layers for product in products_of(layer)]
    millions = sum(map(num_weights, products)) / 1e6
    return f"{millions:.1f} | {sum(product.nbytes for product in products) / 1e6:.1f}"


def _operations(model: Whisper, profile: Profile, kept: int) -> float:
    dims = dims_of(model)
    window = window_of(profile, kept, dims.num_frames)
    return encoding(dims, profile, window, shares_of(model, profile))


def write_factors(folder: Path, rank: int) -> Path:
    """An adapter beside a folder, with factors of that rank, drawn at random, for every product."""
    source, out = read_hub_folder(folder), folder.with_name(f"{folder.name}-factors")
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(SAFETENSORS))
    settings = json.loads((out / "config.json").read_text())
    names = (*ATTENTION, *MLP)
    ranks = [dict.fromkeys(names, rank)] * source.dims.encoder_layers
    settings |= {"model_type": LITE, "low_rank_config": ranks}
    (out / "config.json").write_text(json.dumps(settings))
    (out / LOW_RANK).write_text(json.dumps({"of": folder.name, "theta": THETA}))
    places = {parameter(n, name) for n in range(source.dims.encoder_layers) for name in names}
    draws = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for key, tensor in source.tensors():
        place = key.removesuffix(".weight")
        if place in places:
            for part, shape in (("1", (tensor.shape[1], rank)), ("2", (rank, tensor.shape[0]))):
                state[f"{place}.weight{part}"] = (
                    torch.randn(shape, generator=draws).mul_(0.02).half()
                )
        elif key.startswith("model.encoder.layers."):
            state[key] = tensor
    write_safetensors(out / SAFETENSORS, state)
    return out


if __name__ == "__main__":
    main()
