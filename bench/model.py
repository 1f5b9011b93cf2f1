"""Encode and decode of one checkpoint's shape: each profile, and transformers, side by side.

    python -m bench.model --shape base --batch 8 --tokens 64

Random weights: speed depends on shapes, not on values. Every side encodes the same padded 30 s
windows and decodes exactly the same number of tokens; the sides take turns, and the table gives
medians over the rounds and the ratio to our own dense profile.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import WhisperForConditionalGeneration

from service.model.checkpoint import load_checkpoint
from service.model.whisper import Whisper
from service.profiles import BUILT_IN, Profile
from service.types import DecodeOptions
from tests.checkpoints import write_checkpoint

Side = Callable[[], tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", default="tiny", help="tiny, base, small, ... (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="windows (%(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="per window (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="torch threads (torch's choice)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        sides = _sides(write_checkpoint(Path(folder) / "model", shape=args.shape), args)
        times = {name: [side()] for name, side in sides.items()}  # the warm-up, replaced below
        times = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, side in sides.items():
                times[name].append(side())
    _report(times, args)


def _sides(folder: Path, args: argparse.Namespace) -> dict[str, Side]:
    model = _endless(folder)
    mel_BFT = torch.randn(
        args.batch, model.info.num_mels, 3000, generator=torch.Generator().manual_seed(0)
    )
    sides: dict[str, Side] = {
        name: _ours(model, mel_BFT, profile, args.tokens) for name, profile in BUILT_IN.items()
    }
    return sides | {"transformers": _transformers(folder, mel_BFT, args.tokens)}


def _endless(folder: Path) -> Whisper:
    """The model with end-of-text suppressed, so that every window decodes to the limit."""
    checkpoint = load_checkpoint(str(folder), device="cpu", dtype="float32")
    vocabulary = checkpoint.vocabulary
    suppress = (*vocabulary.suppress_tokens, vocabulary.eot)
    return Whisper(replace(checkpoint, vocabulary=replace(vocabulary, suppress_tokens=suppress)))


def _ours(model: Whisper, mel_BFT: torch.Tensor, profile: Profile, tokens: int) -> Side:
    def run() -> tuple[float, float]:
        began = time.perf_counter()
        encoded = model.encode(mel_BFT, [profile] * len(mel_BFT))
        between = time.perf_counter()
        batch = model.new_decode_batch()
        batch.token_limit = tokens
        options = DecodeOptions(language="en", timestamps=False)
        batch.join(range(len(encoded)), encoded, [options] * len(encoded))
        while len(batch):
            batch.step()
        return between - began, time.perf_counter() - between

    return run


def _transformers(folder: Path, mel_BFT: torch.Tensor, tokens: int) -> Side:
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def run() -> tuple[float, float]:
        began = time.perf_counter()
        states = model.model.encoder(mel_BFT)
        between = time.perf_counter()
        model.generate(
            encoder_outputs=states,
            language="en",
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
        )
        return between - began, time.perf_counter() - between

    return run


def _report(times: dict[str, list[tuple[float, float]]], args: argparse.Namespace) -> None:
    medians = {
        name: tuple(statistics.median(part) * 1000 / args.batch for part in zip(*rows, strict=True))
        for name, rows in times.items()
    }
    dense = sum(medians["dense"])
    print(
        f"{args.shape}, float32, {torch.get_num_threads()} threads, batch {args.batch}, "
        f"{args.tokens} tokens, medians of {args.rounds}; ms per 30 s window"
    )
    print(f"{'':<14}{'encode':>9}{'decode':>9}{'both':>9}{'dense / it':>12}")
    for name, (encode, decode) in medians.items():
        both = encode + decode
        print(f"{name:<14}{encode:>9.0f}{decode:>9.0f}{both:>9.0f}{dense / both:>12.2f}")


if __name__ == "__main__":
    main()
