"""What others make of the recordings that `winnow evaluate` takes: their word error rate.

    python -m bench.peers --corpus CORPUS --domains librispeech-packed --side faster-whisper \
        --weights WHISPER_BASE_IN_CTRANSLATE2

The same weights, the same audio, the same normaliser; greedy, as `evaluate` has it, everything
else as the peer has it by default. `openai-whisper` comes with the extra `test`, takes Winnow's
name of a model and has its weights from there; faster-whisper is to be installed beside.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from service.lab.material import Material, of_corpus, parse_domain
from service.lab.packing import Item
from service.lab.wer import word_errors, words_of
from service.types import Samples
from tests.checkpoints import to_openai_whisper

Transcribe = Callable[[Samples, str], str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="a folder with manifest.tsv")
    parser.add_argument("--domains", default="librispeech-packed", help="(%(default)s)")
    parser.add_argument("--split", default="test", choices=("train", "test", "all"))
    parser.add_argument("--limit", type=int, default=None, help="at most so many of a domain")
    parser.add_argument("--side", required=True, choices=("faster-whisper", "openai-whisper"))
    parser.add_argument(
        "--weights", required=True, help="a folder: in CTranslate2's or in the hub's format"
    )
    parser.add_argument("--compute-type", default="float32", help="faster-whisper's (%(default)s)")
    parser.add_argument("--device", default="cpu", help="openai-whisper's (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transcribe = (_faster if args.side == "faster-whisper" else _openai)(args)
    material = Material(of_corpus(args.corpus), args.split, args.limit)
    for name in args.domains.split(","):
        items = material.items(parse_domain(name))
        errors, words = _score(transcribe, items, name)
        print(f"{args.side} {name} {100 * errors / words:.2f}% of {words} words", flush=True)


def _score(transcribe: Transcribe, items: list[Item], name: str) -> tuple[int, int]:
    errors = words = 0
    for item in tqdm(items, desc=name, unit="file", leave=False, disable=None):
        said = transcribe(item.pcm.astype(np.float32) / 32768, item.language)
        reference = words_of(item.text, item.language)
        errors += word_errors(reference, words_of(said, item.language))
        words += len(reference)
    return errors, words


def _faster(args: argparse.Namespace) -> Transcribe:
    from faster_whisper import WhisperModel

    model = WhisperModel(
        args.weights, device="cpu", compute_type=args.compute_type, cpu_threads=args.threads
    )

    def transcribe(samples: Samples, language: str) -> str:
        segments, _ = model.transcribe(samples, language=language, beam_size=1)
        return "".join(segment.text for segment in segments)

    return transcribe


def _openai(args: argparse.Namespace) -> Transcribe:
    import whisper

    model = to_openai_whisper(Path(args.weights)).to(args.device)

    def transcribe(samples: Samples, language: str) -> str:
        return str(whisper.transcribe(model, samples, language=language, fp16=False)["text"])

    return transcribe


if __name__ == "__main__":
    main()
