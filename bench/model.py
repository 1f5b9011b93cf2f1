"""Encode and decode of one checkpoint's shape: each profile, and transformers, side by side.

    python -m bench.model --shape base --batch 8 --tokens 64
    python -m bench.model --shape turbo --batch 64 --tokens 100 --device cuda --dtype float16

Random weights: speed depends on shapes, not on values. Every side encodes the same padded 30 s
windows and decodes exactly the same number of tokens; the sides take turns, and the table gives
medians over the rounds and the ratio to our own dense profile.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from bench.device import await_device, where
from bench.shapes import checkpoint_of
from service.families.whisper import Whisper
from service.model.checkpoint import Checkpoint
from service.profiles import BUILT_IN, Profile
from service.types import DecodeOptions

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
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--dtype", default="float32", help="(%(default)s)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    sides = _sides(checkpoint_of(args.shape, args.device, args.dtype), args)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for round_ in range(args.rounds + 1):
        for name, side in sides.items():
            took = side()
            if round_:  # the first is the warm-up
                times[name].append(took)
    _report(times, args)


def _sides(checkpoint: Checkpoint, args: argparse.Namespace) -> dict[str, Side]:
    model = Whisper(checkpoint)
    mel_BFT = torch.randn(
        args.batch, model.info.num_mels, 3000, generator=torch.Generator().manual_seed(0)
    ).to(checkpoint.device, checkpoint.dtype)
    sides: dict[str, Side] = {
        name: _ours(model, mel_BFT, profile, args.tokens) for name, profile in BUILT_IN.items()
    }
    return sides | {"transformers": _transformers(checkpoint, mel_BFT, args.tokens)}


def _ours(model: Whisper, mel_BFT: torch.Tensor, profile: Profile, tokens: int) -> Side:
    def run() -> tuple[float, float]:
        began = time.perf_counter()
        encoded = model.encode(mel_BFT, [profile] * len(mel_BFT))
        await_device(mel_BFT.device)
        between = time.perf_counter()
        batch = model.new_decode_batch()
        batch.token_limit, batch.guarded = tokens, False
        options = DecodeOptions(language="en", timestamps=False)
        batch.join(range(len(encoded)), encoded, [options] * len(encoded))
        while len(batch):
            batch.step()
        await_device(mel_BFT.device)
        return between - began, time.perf_counter() - between

    return run


def _transformers(checkpoint: Checkpoint, mel_BFT: torch.Tensor, tokens: int) -> Side:
    """Random weights of the same shapes and type: its own, so that nothing is read twice."""
    dims, vocabulary = checkpoint.weights.dims, checkpoint.vocabulary
    config = WhisperConfig(
        vocab_size=dims.vocab_size,
        num_mel_bins=dims.num_mels,
        d_model=dims.d_model,
        encoder_layers=dims.encoder_layers,
        decoder_layers=dims.decoder_layers,
        encoder_attention_heads=dims.encoder_heads,
        decoder_attention_heads=dims.decoder_heads,
        encoder_ffn_dim=4 * dims.d_model,
        decoder_ffn_dim=4 * dims.d_model,
        decoder_start_token_id=vocabulary.sot,
        bos_token_id=vocabulary.eot,
        eos_token_id=vocabulary.eot,
        pad_token_id=vocabulary.eot,
    )
    with torch.device(checkpoint.device):
        model = WhisperForConditionalGeneration(config).to(checkpoint.dtype).eval()
    model.generation_config = GenerationConfig(
        decoder_start_token_id=vocabulary.sot,
        eos_token_id=vocabulary.eot,
        pad_token_id=vocabulary.eot,
        suppress_tokens=list(vocabulary.suppress_tokens),
        max_length=dims.max_tokens,
        no_timestamps_token_id=vocabulary.no_timestamps,
        is_multilingual=True,
        lang_to_id={f"<|{code}|>": token for code, token in vocabulary.languages.items()},
        task_to_id={"transcribe": vocabulary.transcribe, "translate": vocabulary.translate},
    )

    @torch.inference_mode()
    def run() -> tuple[float, float]:
        began = time.perf_counter()
        states = model.model.encoder(mel_BFT)
        await_device(mel_BFT.device)
        between = time.perf_counter()
        model.generate(
            encoder_outputs=states,
            language="en",
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
        )
        await_device(mel_BFT.device)
        return between - began, time.perf_counter() - between

    return run


def _report(times: dict[str, list[tuple[float, float]]], args: argparse.Namespace) -> None:
    medians = {
        name: tuple(statistics.median(part) * 1000 / args.batch for part in zip(*rows, strict=True))
        for name, rows in times.items()
    }
    dense = sum(medians["dense"])
    print(
        f"{args.shape}, {args.dtype}, {where(torch.device(args.device))}, batch {args.batch}, "
        f"{args.tokens} tokens, medians of {args.rounds}; ms per 30 s window"
    )
    print(f"{'':<14}{'encode':>9}{'decode':>9}{'both':>9}{'dense / it':>12}")
    for name, (encode, decode) in medians.items():
        both = encode + decode
        print(f"{name:<14}{encode:>9.2f}{decode:>9.2f}{both:>9.2f}{dense / both:>12.2f}")


if __name__ == "__main__":
    main()
