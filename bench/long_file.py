"""A long recording of digits at known places, through the pipeline: do times drift, is any lost?

    python -m bench.long_file --corpus CORPUS --minutes 60 --profile dense --pause 13

Strings of 3 to 8 digits of an unseen speaker stand `--pause` to 1.5 times that apart over the whole
recording. From 12 s on each has a window of its own; with less, windows are full of them. Words
that were read are matched to words that were said by time alone, within half a second, so that
reading wrong is not mistaken for timing wrong; lost and doubled words are counted over the
recording and at the seams of windows, where a window ends or begins within a second.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from service.lab.domains import Places, recorded_digits
from service.lab.speech_set import SpeechSet

from service.audio.segment import split
from service.config import ServerConfig
from service.engine.engine import Engine
from service.lab.times import Span, sounding
from service.metrics import Metrics
from service.model.load import load_model
from service.pipeline import Pipeline
from service.profiles import BUILT_IN
from service.types import (
    SAMPLE_RATE,
    Audio,
    DecodeOptions,
    Samples,
    TranscribeRequest,
    Transcript,
)

NEAR_S = 0.5
GOAL_S = 0.3
SEAM_S = 1.0


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording, and where each word in it is, in seconds."""

    samples: Samples
    spans: tuple[Span, ...]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder with manifest.tsv")
    parser.add_argument("--minutes", type=float, default=60, help="(%(default)s)")
    parser.add_argument("--pause", type=float, default=13, help="seconds (%(default)s)")
    parser.add_argument("--profile", default="dense", help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="torch threads (torch's choice)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        digits = recorded_digits(Places(args.corpus, Path(folder), strings=0))
        made = recording(digits, args.minutes * 60, args.pause)
    began = time.perf_counter()
    transcript = transcribe(made.samples, args.profile)
    print(
        f"{args.minutes:g} minutes, pauses from {args.pause:g} s, {args.profile}: "
        f"{time.perf_counter() - began:.0f} s"
    )
    starts = [window.start_s for window in split(Audio(made.samples))]
    for name, found in (
        ("segments", [(s.start, s.end) for s in transcript.segments]),
        ("words", [(w.start, w.end) for s in transcript.segments for w in s.words]),
    ):
        report(name, made, found, starts[1:])


def recording(speech: SpeechSet, seconds: float, pause: float, seed: int = 0) -> Recording:
    """Digits in random order until `seconds` are full; known spans lack the clips' silence."""
    rng = np.random.default_rng(seed)
    samples = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    spans: list[Span] = []
    at = SAMPLE_RATE
    while True:
        for index in rng.integers(len(speech), size=rng.integers(3, 9)):
            clip = speech.get(int(index))
            if at + len(clip) > len(samples):
                return Recording(samples, tuple(spans))
            samples[at : at + len(clip)] = clip
            begin, end = sounding(clip)
            spans.append(((at + begin) / SAMPLE_RATE, (at + end) / SAMPLE_RATE))
            at += len(clip) + int(rng.uniform(0, 0.3) * SAMPLE_RATE)
        at += int(rng.uniform(pause, 1.5 * pause) * SAMPLE_RATE)


def transcribe(samples: Samples, profile: str) -> Transcript:
    """The whole path of the service from a WAV file on, without HTTP."""
    config, metrics = ServerConfig(), Metrics()
    engine = Engine(lambda: load_model("embedded", device="cpu"), config, metrics)
    engine.start()
    engine.wait_ready(120)
    pipeline = Pipeline(engine, config, metrics, BUILT_IN)
    wav = io.BytesIO()
    soundfile.write(wav, samples, SAMPLE_RATE, format="WAV")
    wav.seek(0)
    options = DecodeOptions(language="en", word_times=True)
    try:
        request = TranscribeRequest(BUILT_IN[profile], options, timeout_s=3600)
        return asyncio.run(pipeline.transcribe(wav, request))
    finally:
        pipeline.close()
        engine.stop()


def report(name: str, made: Recording, found: Sequence[Span], seams: Sequence[float]) -> None:
    """Prints matches, errors, drift, and what was lost and doubled, also at seams."""
    pairs = match(made.spans, found)
    said = np.array([made.spans[i][0] for i, _ in pairs])
    errors = np.array([found[j][0] - made.spans[i][0] for i, j in pairs])
    ends = np.array([found[j][1] - made.spans[i][1] for i, j in pairs])
    slope = np.polyfit(said / 3600, errors, 1)[0]
    spread = errors.std() / (said / 3600).std() / np.sqrt(len(said))
    lost = sorted(set(range(len(made.spans))) - {i for i, _ in pairs})
    doubled = sorted(set(range(len(found))) - {j for _, j in pairs})

    def near(times: Sequence[float]) -> int:
        return sum(any(abs(time - seam) < SEAM_S for seam in seams) for time in times)

    share = near([span[0] for span in made.spans]) / len(made.spans)
    print(
        f"{name}: {len(made.spans)} said, {len(found)} found, {len(pairs)} matched\n"
        f"  start: mean |error| {np.abs(errors).mean():.3f} s, median "
        f"{np.median(np.abs(errors)):.3f}, p90 {np.quantile(np.abs(errors), 0.9):.3f}, max "
        f"{np.abs(errors).max():.3f}; within {GOAL_S} s {np.mean(np.abs(errors) <= GOAL_S):.1%}\n"
        f"  end: mean |error| {np.abs(ends).mean():.3f} s, median {np.median(np.abs(ends)):.3f}\n"
        f"  drift: {slope:+.4f} s an hour (standard error {spread:.4f})\n"
        f"  lost {len(lost)}, of them {near([made.spans[i][0] for i in lost])} at one of "
        f"{len(seams)} seams; found beside them {len(doubled)}, of them "
        f"{near([found[j][0] for j in doubled])} at a seam; {share:.1%} of words are at a seam\n"
        f"  out of order {sum(a[1] > b[0] + 1e-9 for a, b in itertools.pairwise(found))}"
    )


def match(said: Sequence[Span], found: Sequence[Span]) -> list[tuple[int, int]]:
    """Pairs of what is nearest in time, each used once, the nearest first."""
    starts = np.array([span[0] for span in said])
    candidates = []
    for j, (start, _) in enumerate(found):
        first, end = np.searchsorted(starts, [start - NEAR_S, start + NEAR_S])
        candidates += [(abs(starts[i] - start), int(i), j) for i in range(first, end)]
    pairs: dict[int, int] = {}
    used: set[int] = set()
    for _, i, j in sorted(candidates):
        if i not in pairs and j not in used:
            pairs[i] = j
            used.add(j)
    return sorted(pairs.items())


if __name__ == "__main__":
    main()
