"""Speed of the audio front end on one core: `python -m bench.audio [FILE]`.

Times real time of each stage and of the whole chain, median of several runs, by the processor
time of what works: other work on the machine is not counted. Without a file it makes ten minutes
of speech from the repository's sample, as mp3.

The last lines are the chain as the service runs it: decoded by a worker's process, whose time
counts too, and heard where the worker left the samples. It takes turns with the chain in one
process, so that both see the same machine. Linux only, which tells the worker's time.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch

from service.audio.decode import decode
from service.audio.mel import log_mel
from service.audio.segment import split
from service.audio.vad import speech_probabilities
from service.audio.workers import WorkerPool
from service.types import SAMPLE_RATE, Audio, Samples

SAMPLE = Path(__file__).resolve().parents[1] / "docs" / "samples" / "ljspeech-mix.opus"
MINUTES, SOURCE_RATE = 10, 44_100
CHUNK_BY_CHUNK_SECONDS = 20


def main() -> None:
    """Prints one line for each stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="a recording of some minutes")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = args.file.read_bytes() if args.file else spoken_mp3()
    audio = decode(io.BytesIO(data), 24 * 3600)
    windows = [window.samples for window in split(audio)]
    at_source_rate = soxr.resample(audio.samples, SAMPLE_RATE, SOURCE_RATE)
    first = audio.samples[: CHUNK_BY_CHUNK_SECONDS * SAMPLE_RATE]
    stages: dict[str, tuple[Callable[[], object], float]] = {
        "decode and resample": (lambda: decode(io.BytesIO(data), 24 * 3600), audio.duration_s),
        f"  of which soxr {SOURCE_RATE} -> {SAMPLE_RATE}": (
            lambda: soxr.resample(at_source_rate, SOURCE_RATE, SAMPLE_RATE),
            audio.duration_s,
        ),
        "vad": (lambda: speech_probabilities(audio.samples), audio.duration_s),
        "vad, one chunk a call": (lambda: chunk_by_chunk(first), len(first) / SAMPLE_RATE),
        "vad and windows": (lambda: split(audio), audio.duration_s),
        "windows without vad": (lambda: split(audio, vad=False), audio.duration_s),
        "log-mel, batches of 8": (lambda: mel_of(windows), audio.duration_s),
    }
    print(f"{audio.duration_s:.0f} s of audio, {len(windows)} windows, one core, {args.runs} runs")
    print(f"{'stage':<34}{'median s':>10}{'x real time':>13}{'best':>8}")
    for name, (stage, seconds) in stages.items():
        show(name, measure(stage, args.runs), seconds)
    alone, pooled = asyncio.run(both_chains(data, args.runs))
    show("whole chain", alone, audio.duration_s)
    show("whole chain, decoded by a worker", pooled, audio.duration_s)
    ratios = [there / here for here, there in zip(alone, pooled, strict=True)]
    print(f"a worker costs {100 * (statistics.median(ratios) - 1):+.1f}% of the chain")


def show(name: str, times: list[float], seconds: float) -> None:
    median = statistics.median(times)
    print(f"{name:<34}{median:>10.3f}{seconds / median:>13.0f}{seconds / min(times):>8.0f}")


def spoken_mp3() -> bytes:
    """The sample said over and over, with pauses, as a 44.1 kHz mp3."""
    with SAMPLE.open("rb") as source:
        sample = decode(source, 24 * 3600).samples
    pause = 0.001 * np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    phrase = soxr.resample(np.concatenate([sample, pause]), SAMPLE_RATE, SOURCE_RATE)
    speech = np.resize(phrase, MINUTES * 60 * SOURCE_RATE)
    buffer = io.BytesIO()
    soundfile.write(buffer, speech, SOURCE_RATE, format="MP3")
    return buffer.getvalue()


def chunk_by_chunk(samples: Samples) -> None:
    """The same network, called for each 32 ms, as its package is used by most."""
    for at in range(0, len(samples), 512):
        speech_probabilities(samples[at : at + 512])


def mel_of(windows: list[Samples]) -> None:
    for at in range(0, len(windows), 8):
        log_mel(windows[at : at + 8], 80)


def chain(data: bytes) -> None:
    """From the bytes of a file to the model's features."""
    features_of(decode(io.BytesIO(data), 24 * 3600))


def features_of(audio: Audio) -> None:
    mel_of([window.samples for window in split(audio)])


async def both_chains(data: bytes, runs: int) -> tuple[list[float], list[float]]:
    """Processor seconds of each run: decoded here, and decoded by a worker."""
    pool = WorkerPool(1, 24 * 3600, print)
    pool.start()
    alone, pooled = [], []
    try:
        for _ in range(runs + 1):
            start = time.process_time()
            chain(data)
            alone.append(time.process_time() - start)
            start = worked(pool)
            (audio,) = await pool.decode(io.BytesIO(data), False, lambda: None)
            features_of(audio)
            pooled.append(worked(pool) - start)
    finally:
        pool.close()
    return alone[1:], pooled[1:]  # without the run that warms up


def worked(pool: WorkerPool) -> float:
    """Processor seconds of this process and of its workers."""
    return time.process_time() + pool.cpu_s()


def measure(stage: Callable[[], object], runs: int) -> list[float]:
    """Processor seconds of each run, after one to warm up."""
    stage()
    times = []
    for _ in range(runs):
        start = time.thread_time()
        stage()
        times.append(time.thread_time() - start)
    return times


if __name__ == "__main__":
    main()
