"""What a GPU makes of encoding, of decode steps and of the engine under load, at true shapes.

    python -m bench.gpu --shape turbo --rows 8,64,256
    python -m bench.gpu --device cpu --shape tiny --rows 2 --tokens 8 --seconds 5

Random weights: speed and memory depend on shapes, not on values. Beside each time stands what it is
of the measured rate: encoding of a large matrix product's, a step of a copy's, of the bytes that it
has to read. Steps are timed as they are served (`graphs`), then a call at a time over the same
pages, then over packed rows. The load keeps so many windows in flight, and memory is said to have
run out once; a GPU has half of the seconds to encode at once, and half beside the steps.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait

import numpy as np
import torch

from bench import costs
from bench.costs import Work
from bench.device import await_device, where
from bench.rates import copy_rate, matrix_rate, median_s
from bench.shapes import checkpoint_of
from service.config import ServerConfig
from service.decode.batch import WindowDecoder
from service.engine.budget import MIB, budget_for
from service.engine.engine import Engine
from service.engine.lane import AtOnce, Beside, Lane
from service.families.whisper import Whisper
from service.metrics import Metrics
from service.model.checkpoint import Checkpoint
from service.model.sparsify import num_kept
from service.profiles import BUILT_IN, Profile
from service.types import SAMPLE_RATE, DecodeOptions, Encoded, Job, Window

PROFILES = ("dense", "balanced", "fast", "turbo")
WISH = DecodeOptions("en", timestamps=False)
WAIT_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", default="turbo", help="tiny, turbo, large, ... (%(default)s)")
    parser.add_argument("--rows", default="8,64,256", help="windows at once (%(default)s)")
    parser.add_argument("--tokens", type=int, default=100, help="of each window (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="of load; 0: none (%(default)s)")
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N (%(default)s)")
    args = parser.parse_args()
    on_gpu = args.device != "cpu"
    began = time.perf_counter()
    model = _FailingOnce(checkpoint_of(args.shape, args.device, "float16" if on_gpu else "float32"))
    device = model.checkpoint.device
    await_device(device)
    print(f"{args.shape} on {where(device)}, ready after {time.perf_counter() - began:.1f} s")
    how = "graphs over pages" if model.new_graphs else "packed rows, a call at a time"
    print(f"decodes with {how}")
    rows = [int(num) for num in args.rows.split(",")]
    with torch.inference_mode():
        encoding(model, rows)
        steps(model, rows, args.tokens)
    if args.seconds:
        lanes: dict[str, Lane] = {"at once": AtOnce()}
        if on_gpu:
            lanes["beside the steps"] = Beside(device)
        for name, lane in lanes.items():
            print(f"\nload, encoding {name}: ", end="", flush=True)
            load(model, max(rows), args.seconds / len(lanes), lane)


def encoding(model: Whisper, rows: Sequence[int]) -> None:
    rate = matrix_rate(model.checkpoint.device, model.checkpoint.dtype)
    print(f"\nencode: ms a window; dense beside {rate / 1e12:.2g} TFLOP/s of a matrix product")
    columns = "".join(f"{name:>10}" for name in (*PROFILES, "mixed", "apart"))
    print(f"{'windows':>8}{columns}{'of rate':>9}")
    profiles = [BUILT_IN[name] for name in PROFILES]
    for num in rows:
        mel_BFT, each = _mel(model, num), -(-num // len(profiles))
        mixed = [profile for profile in profiles for _ in range(each)][:num]
        asked = [[[profile] * num] for profile in profiles]
        asked += [[mixed], [[p for p in mixed if p is profile] for profile in profiles]]
        took = [
            median_s(_encoding(model, mel_BFT, parts), model.checkpoint.device, runs=3)
            for parts in asked
        ]
        should = costs.stages(_work(model, BUILT_IN["dense"], num, 0))
        share = (should["stem"] + should["layers before"]).flops / took[0] / rate
        print(f"{num:>8}" + "".join(f"{1e3 * s / num:>10.2f}" for s in took) + f"{share:>9.0%}")


def steps(model: Whisper, rows: Sequence[int], num_tokens: int) -> None:
    rate = copy_rate(model.checkpoint.device)
    print(f"\nstep: ms, mean of {num_tokens}; of a copy's {rate / 1e9:.0f} GB/s as served")
    ways = ("graphs", "calls", "packed") if model.new_graphs else ("packed",)
    print(f"{'windows':>8} {'profile':<10}" + "".join(f"{way:>10}" for way in ways) + "  of rate")
    for num in rows:
        for name in ("dense", "fast"):
            encoded = model.encode(_mel(model, 1), [BUILT_IN[name]]) * num
            took = [_step_seconds(model, encoded, num_tokens, way) for way in ways]
            should = costs.step(_work(model, BUILT_IN[name], num, num_tokens))
            share = sum(piece.bytes for piece in should.values()) / took[0] / rate
            line = "".join(f"{1e3 * seconds:>10.2f}" for seconds in took)
            print(f"{num:>8} {name:<10}{line}{share:>9.0%}")


def load(model: _FailingOnce, num: int, seconds: float, lane: Lane) -> None:
    """So many windows in flight, each request one; and memory that runs out once."""
    config = ServerConfig(max_decode_windows=num, max_queue_windows=4 * num)
    budget = budget_for(model.info, config).total // MIB
    metrics, model.failed = Metrics().of(model.info.name), 0
    warm = [BUILT_IN["dense"]]
    engine = Engine(lambda: model, config, metrics, warm_up=lambda: warm, lane=lane)
    engine.start()
    engine.wait_ready(WAIT_S)
    draws = np.random.default_rng(0)
    noise = (0.1 * draws.standard_normal(30 * SAMPLE_RATE)).astype(np.float32)
    flying: dict[object, Job] = {}
    ended: Counter[str] = Counter()
    _reset_peak(model)
    begin, sent = time.monotonic(), 0
    while time.monotonic() < begin + seconds or flying:
        while time.monotonic() < begin + seconds and len(flying) < 2 * num:
            profile = BUILT_IN[PROFILES[sent % len(PROFILES)]]
            window = Window(0, 0.0, noise)
            job = Job(f"request-{sent}", window, profile, WISH, begin + seconds + WAIT_S)
            engine.submit([job])
            flying[job.reply] = job
            sent += 1
            if sent == 3 * num:
                model.fail_next()
        done, _ = wait([job.reply for job in flying.values()], WAIT_S, FIRST_COMPLETED)
        if not done:
            ended["never answered"] += len(flying)
            break
        for reply in done:
            error = flying.pop(reply).reply.exception()
            ended["answered" if error is None else type(error).__name__] += 1
    took = time.monotonic() - begin
    engine.stop()
    print(f"{sent} windows, {num} decoded at once, {took:.0f} s, ", end="")
    print(", ".join(f"{count} {what}" for what, count in ended.items()), end="")
    print(f"; {30 * ended['answered'] / took:.0f} times real time")
    print(f"out of memory injected {model.failed} times; budget of decoding {budget} MiB", end="")
    print(f", at the most allocated {_peak(model) // MIB} MiB")


class _FailingOnce(Whisper):
    """A model whose next encode runs out of memory where that is asked for."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self._due, self.failed = False, 0

    def fail_next(self) -> None:
        self._due = True

    def encode(
        self,
        mel_BFT: torch.Tensor,
        profiles: Sequence[Profile],
        audio_frames: Sequence[int] | None = None,
    ) -> list[Encoded]:
        if self._due:
            self._due, self.failed = False, self.failed + 1
            raise torch.OutOfMemoryError("injected")
        return super().encode(mel_BFT, profiles, audio_frames)


def _encoding(
    model: Whisper, mel_BFT: torch.Tensor, parts: Sequence[Sequence[Profile]]
) -> Callable[[], list[list[Encoded]]]:
    """As many of the windows as each part has profiles."""
    return lambda: [model.encode(mel_BFT[: len(part)], part) for part in parts if part]


def _step_seconds(model: Whisper, encoded: list[Encoded], num_tokens: int, way: str) -> float:
    """The second of two runs: in the first, graphs are recorded and memory is taken."""
    took = 0.0
    for _ in range(2):
        batch = _batch(model, way)
        batch.token_limit, batch.guarded = num_tokens, False
        batch.join(range(len(encoded)), encoded, [WISH] * len(encoded))
        await_device(model.checkpoint.device)
        began, number = time.perf_counter(), 0
        while len(batch):
            batch.step()
            number += 1
        await_device(model.checkpoint.device)
        took = (time.perf_counter() - began) / max(1, number)
    return took


def _batch(model: Whisper, way: str) -> WindowDecoder:
    batch = model.new_decode_batch()
    if way == "calls":
        batch.graphs = None
    elif way == "packed":
        weights, dims = model.checkpoint.weights, model.checkpoint.weights.dims
        vocabulary = model.checkpoint.vocabulary
        return WindowDecoder(weights.decoder, vocabulary, model.rules, dims.max_tokens)
    return batch


def _work(model: Whisper, profile: Profile, num: int, num_tokens: int) -> Work:
    """For what it should cost."""
    dims, size = model.checkpoint.weights.dims, model.checkpoint.dtype.itemsize
    kept = num_kept(num_kept(dims.num_frames, profile.sparsity), profile.late)
    return Work(dims, profile, num, kept, 0, num_tokens, size, size, size)


def _mel(model: Whisper, num: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    mel_BFT = torch.randn(num, model.info.num_mels, 3000, generator=source)
    return mel_BFT.to(model.checkpoint.device, model.checkpoint.dtype)


def _reset_peak(model: Whisper) -> None:
    if model.checkpoint.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.checkpoint.device)


def _peak(model: Whisper) -> int:
    """Allocated since, weights and all; 0 where nobody counts."""
    if model.checkpoint.device.type != "cuda":
        return 0
    return torch.cuda.max_memory_allocated(model.checkpoint.device)


if __name__ == "__main__":
    main()
