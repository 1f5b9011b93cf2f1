"""One contestant, in a process of its own: waveforms in, texts and seconds out.

    PYTHON -P bench/contest/side.py NAME WEIGHTS --threads 2 --compute int8

Speaks JSON, a line for each message, on standard input and output. It runs in whatever
environment has the peer, so it imports numpy and the peer, and nothing of Winnow. The first line
it writes says which version it is; then each line it reads, `{"clips": FILE.npz, "batch": 8,
"language": "en"}`, is answered by `{"texts": [...], "seconds": 1.2, "rss_mb": 300}`. The clock
runs from decoded audio, float32 at 16 kHz, to text, feature extraction included.

With `--tokens N` every clip is a window of 30 s that gets exactly N tokens: the weights never
choose the end (`bench.shapes`), no timestamps are asked for, and nothing is decoded again.
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
# Weights, threads, what is computed in, and how many tokens a window gets; None: as the model ends.
Make = Callable[[Path, int, str, int | None], Transcribe]

SAMPLE_RATE = 16_000
PROMPT_TOKENS = 4  # start, language, task, no timestamps
GAP_S = 1.0  # between clips that a peer takes as one recording


def faster_whisper(weights: Path, threads: int, compute: str, tokens: int | None) -> Transcribe:
    """Greedy. One clip at a time by `WhisperModel`, several by its `BatchedInferencePipeline`,
    for which the clips are joined and their places given: it batches inside one recording."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(
        str(weights), device="cpu", compute_type=compute, cpu_threads=threads, num_workers=1
    )
    batched = BatchedInferencePipeline(model)
    options: dict[str, Any] = {"beam_size": 1}
    alone: dict[str, Any] = {}
    if tokens:
        # CTranslate2 takes half of prompt and new tokens together for the most that are new.
        most = 2 * tokens - PROMPT_TOKENS
        options |= {"max_new_tokens": most, "temperature": 0.0, "no_speech_threshold": None}
        options |= {"compression_ratio_threshold": None, "log_prob_threshold": None}
        alone = {"without_timestamps": True}

    def transcribe(clips: list[Samples], batch: int, language: str) -> list[str]:
        if batch == 1:
            found = (
                model.transcribe(clip, language=language, **options, **alone)[0] for clip in clips
            )
            return ["".join(segment.text for segment in segments) for segments in found]
        joined, places = _joined(clips)
        bounds = [{"start": start, "end": end} for start, end in places]
        segments, _ = batched.transcribe(
            joined,
            language=language,
            batch_size=batch,
            vad_filter=False,
            clip_timestamps=bounds,
            without_timestamps=True,
            **options,
        )
        return _texts(((one.start, one.text) for one in segments), places)

    return transcribe


def openai_whisper(weights: Path, threads: int, compute: str, tokens: int | None) -> Transcribe:
    """One clip at a time, whatever the batch: it knows no other way. `weights`: its own .pt."""
    import torch
    import whisper

    torch.set_num_threads(threads)
    model = whisper.load_model(str(weights), device="cpu")
    options: dict[str, Any] = {}
    if tokens:
        options = {"sample_len": tokens, "without_timestamps": True, "temperature": 0.0}

    def transcribe(clips: list[Samples], batch: int, language: str) -> list[str]:
        return [
            str(whisper.transcribe(model, clip, language=language, fp16=False, **options)["text"])
            for clip in clips
        ]

    return transcribe


def transformers(weights: Path, threads: int, compute: str, tokens: int | None) -> Transcribe:
    """`generate` on batches of windows, greedy, without timestamps, as its pipeline does."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    torch.set_num_threads(threads)
    dtype = getattr(torch, compute)
    model = WhisperForConditionalGeneration.from_pretrained(weights, dtype=dtype).eval()
    processor = WhisperProcessor.from_pretrained(weights)
    options: dict[str, Any] = {"do_sample": False, "num_beams": 1}
    if tokens:
        options |= {"min_new_tokens": tokens, "max_new_tokens": tokens}

    @torch.inference_mode()
    def transcribe(clips: list[Samples], batch: int, language: str) -> list[str]:
        texts: list[str] = []
        named = {"language": language} if model.generation_config.is_multilingual else {}
        for at in range(0, len(clips), batch):
            features = processor(
                clips[at : at + batch], sampling_rate=SAMPLE_RATE, return_tensors="pt"
            ).input_features.to(dtype)
            said = model.generate(features, **options, **named)
            texts += processor.batch_decode(said, skip_special_tokens=True)
        return texts

    return transcribe


def whisper_cpp(weights: Path, threads: int, compute: str, tokens: int | None) -> Transcribe:
    """One clip at a time. `weights`: a ggml file."""
    from pywhispercpp.model import Model

    options: dict[str, Any] = {}
    if tokens:
        # It stops after the token whose number, from 0, is the limit.
        options = {"max_tokens": tokens - 1, "no_timestamps": True, "single_segment": True}
        options |= {"temperature_inc": 0.0, "no_speech_thold": 1.0}
    model = Model(
        str(weights),
        n_threads=threads,
        print_realtime=False,
        print_progress=False,
        redirect_whispercpp_logs_to=None,
        **options,
    )

    def transcribe(clips: list[Samples], batch: int, language: str) -> list[str]:
        return [
            # It strips the segments: joined without a space, words would grow together.
            " ".join(segment.text for segment in model.transcribe(clip, language=language))
            for clip in clips
        ]

    return transcribe


def openvino(weights: Path, threads: int, compute: str, tokens: int | None) -> Transcribe:
    """`WhisperPipeline` of OpenVINO GenAI, one clip at a time: it takes no more."""
    from openvino_genai import WhisperPipeline

    pipeline = WhisperPipeline(str(weights), "CPU", INFERENCE_NUM_THREADS=threads)
    options: dict[str, Any] = {"max_new_tokens": tokens} if tokens else {}
    if pipeline.get_generation_config().is_multilingual:
        options |= {"task": "transcribe"}

    def transcribe(clips: list[Samples], batch: int, language: str) -> list[str]:
        named = {"language": f"<|{language}|>"} if "task" in options else {}
        return [str(pipeline.generate(clip, **options, **named).texts[0]) for clip in clips]

    return transcribe


SIDES: dict[str, tuple[str, Make]] = {
    "faster-whisper": ("faster-whisper", faster_whisper),
    "openai-whisper": ("openai-whisper", openai_whisper),
    "openvino": ("openvino-genai", openvino),
    "transformers": ("transformers", transformers),
    "whisper.cpp": ("pywhispercpp", whisper_cpp),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compute", default="float32")
    parser.add_argument("--tokens", type=int)
    args = parser.parse_args()
    answers = open_answers()
    package, make = SIDES[args.side]
    transcribe = make(args.weights, args.threads, args.compute, args.tokens)
    tell(answers, {"version": f"{package} {importlib.metadata.version(package)}"})
    for asked in read_messages():
        clips = read_clips(asked["clips"])
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


def read_clips(path: str) -> list[Samples]:
    """The arrays of an `.npz`, in their order."""
    with np.load(path) as file:
        return [file[f"arr_{number}"] for number in range(len(file.files))]


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
