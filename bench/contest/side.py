"""One contestant, in a process of its own: waveforms in, texts and seconds out.

    PYTHON bench/contest/side.py NAME FOLDER --threads 2 --compute int8

Speaks JSON, a line for each message, on standard input and output. It runs in whatever
environment has the peer, so it imports numpy and the peer, and nothing of Winnow. The first line
it writes says which version it is; then each line it reads, `{"clips": FILE.npz, "batch": 8,
"language": "en"}`, is answered by `{"texts": [...], "seconds": 1.2, "rss_mb": 300}`. The clock
runs from decoded audio, float32 at 16 kHz, to text, feature extraction included.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
# Clips, how many of them at once, their language -> a text for each.
Transcribe = Callable[[list[Samples], int, str], list[str]]

SAMPLE_RATE = 16_000
GAP_S = 1.0  # between clips that a peer takes as one recording


def faster_whisper(folder: Path, threads: int, compute: str) -> Transcribe:
    """Greedy. One clip at a time by `WhisperModel`, several by its `BatchedInferencePipeline`,
    for which the clips are joined and their places given: it batches inside one recording."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(
        str(folder), device="cpu", compute_type=compute, cpu_threads=threads, num_workers=1
    )
    batched = BatchedInferencePipeline(model)

    def transcribe(clips: list[Samples], batch: int, language: str) -> list[str]:
        if batch == 1:
            found = (model.transcribe(clip, language=language, beam_size=1)[0] for clip in clips)
            return ["".join(segment.text for segment in segments) for segments in found]
        joined, places = _joined(clips)
        bounds = [{"start": start, "end": end} for start, end in places]
        segments, _ = batched.transcribe(
            joined,
            language=language,
            beam_size=1,
            batch_size=batch,
            vad_filter=False,
            clip_timestamps=bounds,
            without_timestamps=True,
        )
        return _texts(((one.start, one.text) for one in segments), places)

    return transcribe


def openai_whisper(folder: Path, threads: int, compute: str) -> Transcribe:
    """One clip at a time, whatever the batch: it knows no other way. `folder`: its own .pt."""
    import torch
    import whisper

    torch.set_num_threads(threads)
    model = whisper.load_model(str(folder), device="cpu")

    def transcribe(clips: list[Samples], batch: int, language: str) -> list[str]:
        return [
            str(whisper.transcribe(model, clip, language=language, fp16=False)["text"])
            for clip in clips
        ]

    return transcribe


def transformers(folder: Path, threads: int, compute: str) -> Transcribe:
    """`generate` on batches of windows, greedy, without timestamps, as its pipeline does."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    torch.set_num_threads(threads)
    dtype = getattr(torch, compute)
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
    processor = WhisperProcessor.from_pretrained(folder)

    @torch.inference_mode()
    def transcribe(clips: list[Samples], batch: int, language: str) -> list[str]:
        texts: list[str] = []
        named = {"language": language} if model.generation_config.is_multilingual else {}
        for at in range(0, len(clips), batch):
            features = processor(
                clips[at : at + batch], sampling_rate=SAMPLE_RATE, return_tensors="pt"
            ).input_features.to(dtype)
            tokens = model.generate(features, do_sample=False, num_beams=1, **named)
            texts += processor.batch_decode(tokens, skip_special_tokens=True)
        return texts

    return transcribe


def whisper_cpp(folder: Path, threads: int, compute: str) -> Transcribe:
    """One clip at a time. `folder`: a ggml file."""
    from pywhispercpp.model import Model

    model = Model(
        str(folder),
        n_threads=threads,
        print_realtime=False,
        print_progress=False,
        redirect_whispercpp_logs_to=None,
    )

    def transcribe(clips: list[Samples], batch: int, language: str) -> list[str]:
        return [
            "".join(segment.text for segment in model.transcribe(clip, language=language))
            for clip in clips
        ]

    return transcribe


SIDES: dict[str, tuple[str, Callable[[Path, int, str], Transcribe]]] = {
    "faster-whisper": ("faster-whisper", faster_whisper),
    "openai-whisper": ("openai-whisper", openai_whisper),
    "transformers": ("transformers", transformers),
    "whisper.cpp": ("pywhispercpp", whisper_cpp),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compute", default="float32")
    args = parser.parse_args()
    answers = open_answers()
    package, make = SIDES[args.side]
    transcribe = make(args.folder, args.threads, args.compute)
    tell(answers, {"version": f"{package} {importlib.metadata.version(package)}"})
    for asked in read_messages():
        with np.load(asked["clips"]) as file:
            clips = [file[f"arr_{number}"] for number in range(len(file.files))]
        began = time.perf_counter()
        texts = transcribe(clips, asked["batch"], asked["language"])
        seconds = time.perf_counter() - began
        tell(answers, {"texts": texts, "seconds": seconds, "rss_mb": rss_mb()})


def open_answers() -> TextIO:
    """Standard output, kept for answers: what a peer prints there is none, and goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def read_messages() -> Iterator[dict[str, Any]]:
    """What is asked, a line each, until there is no more."""
    for line in sys.stdin:
        yield json.loads(line)


def tell(answers: TextIO, message: dict[str, Any]) -> None:
    """Answers with one line."""
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def rss_mb() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _joined(clips: list[Samples]) -> tuple[Samples, list[tuple[float, float]]]:
    """The clips as one recording, and where in it each is, in seconds."""
    gap = np.zeros(round(GAP_S * SAMPLE_RATE), np.float32)
    parts: list[Samples] = []
    places: list[tuple[float, float]] = []
    at = 0
    for clip in clips:
        places.append((at / SAMPLE_RATE, (at + len(clip)) / SAMPLE_RATE))
        parts += [clip, gap]
        at += len(clip) + len(gap)
    return np.concatenate(parts), places


def _texts(said: Iterator[tuple[float, str]], places: list[tuple[float, float]]) -> list[str]:
    """Each segment's text at the clip in which it begins."""
    texts = [""] * len(places)
    starts = np.array([start for start, _ in places]) - GAP_S / 2
    for start, text in said:
        texts[max(0, int(np.searchsorted(starts, start, side="right")) - 1)] += text
    return texts


if __name__ == "__main__":
    main()
