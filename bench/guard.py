"""What the guard saves while decoding: tokens with and without it, on windows that go wrong.

    python -m bench.guard --sparsity 0.9

The embedded model reads docs/samples/digits.wav at random places of 30 s windows, at a sparsity
it was never made for, with timestamps and without. To force loops, the same model is also run
with its end-of-text taken away, so that every window would go on to its limit of 224 tokens.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from service.audio.decode import decode
from service.audio.mel import log_mel
from service.lab.evaluate import decode_together
from service.model.checkpoint import load_checkpoint
from service.model.whisper import Whisper
from service.profiles import Profile
from service.types import SAMPLE_RATE, WINDOW_SAMPLES, DecodeOptions, Encoded, Hypothesis

LIMIT = 224  # tokens of a window
SAMPLE = Path(__file__).parents[1] / "docs" / "samples" / "digits.wav"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sparsity", type=float, default=0.9, help="(%(default)s)")
    parser.add_argument("--layer", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--windows", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sound = Whisper(load_checkpoint("embedded", device="cpu", dtype="float32"))
    profile = Profile("sparse", layer=args.layer, sparsity=args.sparsity)
    encoded = sound.encode(_windows(args.windows, sound.info.num_mels), [profile] * args.windows)
    print(f"winnow-nano, sparsity {args.sparsity:g}, layer {args.layer}, {args.windows} windows")
    print(f"{'':<30}{'tokens':>9}{'guarded':>9}{'saved':>8}{'at limit':>10}{'guarded':>9}")
    for name, model in (("as it is", sound), ("without end-of-text", _endless(sound))):
        for timestamps in (True, False):
            without, with_guard = (
                _decode(model, encoded, timestamps, guarded) for guarded in (False, True)
            )
            _report(f"{name}, {'times' if timestamps else 'no times'}", without, with_guard)


def _windows(count: int, num_mels: int) -> torch.Tensor:
    with SAMPLE.open("rb") as source:
        speech = decode(source, 60).samples
    rng = np.random.default_rng(0)
    windows = []
    for _ in range(count):
        lead = np.zeros(int(rng.uniform(0, 3) * SAMPLE_RATE), np.float32)
        repeats = [speech] * int(rng.integers(1, 10))
        windows.append(np.concatenate([lead, *repeats])[:WINDOW_SAMPLES])
    return log_mel(windows, num_mels)


def _endless(model: Whisper) -> Whisper:
    vocabulary = model.checkpoint.vocabulary
    suppress = (*vocabulary.suppress_tokens, vocabulary.eot)
    endless = replace(vocabulary, suppress_tokens=suppress)
    return Whisper(replace(model.checkpoint, vocabulary=endless))


def _decode(
    model: Whisper, encoded: list[Encoded], timestamps: bool, guarded: bool
) -> list[Hypothesis]:
    batch = model.new_decode_batch()
    batch.guarded = guarded
    wish = DecodeOptions("en", timestamps=timestamps)
    return decode_together(batch, encoded, wish)


def _report(name: str, without: list[Hypothesis], with_guard: list[Hypothesis]) -> None:
    before, after = (sum(len(h.tokens) for h in said) for said in (without, with_guard))
    limit, guarded = (sum(len(h.tokens) >= LIMIT for h in said) for said in (without, with_guard))
    saved = 1 - after / before
    print(f"{name:<30}{before:>9}{after:>9}{saved:>8.0%}{limit:>10}{guarded:>9}")


if __name__ == "__main__":
    main()
