"""Winnow as a contestant: `side.py`'s messages, and with them the name of a profile.

    python -m bench.contest.ours MODEL --threads 2 --dtype float32

Clips go through the path that the service takes, as many in flight as the batch has. With
`--tokens` it is the model alone, without the service's judgement of texts, which random weights
would not pass: batches of windows to log-mel, states and so many tokens.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from bench.contest.side import open_answers, read_clips, read_messages, rss_mb, tell
from service import __version__
from service.audio.mel import log_mel
from service.config import ServerConfig
from service.families.load import load_served
from service.families.whisper import Whisper
from service.lab.packing import Item
from service.lab.runs import How, Service
from service.model.protocol import ModelInfo
from service.profiles import Profile, load_profiles
from service.types import DecodeOptions, Hypothesis, Samples

# Clips, how many at once, their language and a profile -> a text for each.
Transcribe = Callable[[list[Samples], int, str, Profile], list[str]]
MAX_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tokens", type=int)
    args = parser.parse_args()
    answers = open_answers()
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    config = ServerConfig(
        model=args.model, dtype=args.dtype, threads=args.threads, max_batch_windows=MAX_BATCH
    )
    profiles = load_profiles(None, args.model)
    with _forced(config, args.tokens) if args.tokens else _served(config) as (info, transcribe):
        tell(answers, {"version": f"winnow {__version__}", "compute": _computes_in(info)})
        for asked in read_messages():
            clips, profile = read_clips(asked["clips"]), profiles[asked["profile"]]
            began = time.perf_counter()
            texts = transcribe(clips, asked["batch"], asked["language"], profile)
            seconds = time.perf_counter() - began
            tell(answers, {"texts": texts, "seconds": seconds, "rss_mb": rss_mb()})


@contextmanager
def _served(config: ServerConfig) -> Iterator[tuple[ModelInfo, Transcribe]]:
    with Service(config, partial(load_served, config)) as service:

        def transcribe(
            clips: list[Samples], batch: int, language: str, profile: Profile
        ) -> list[str]:
            items = [_item(number, clip, language) for number, clip in enumerate(clips)]
            run = service.run(items, profile, How(concurrency=batch))
            return [answer.text for answer in run.answers]

        yield service.info, transcribe


@contextmanager
def _forced(config: ServerConfig, tokens: int) -> Iterator[tuple[ModelInfo, Transcribe]]:
    model = load_served(config)
    assert isinstance(model, Whisper)

    def transcribe(clips: list[Samples], batch: int, language: str, profile: Profile) -> list[str]:
        texts: list[str] = []
        for at in range(0, len(clips), batch):
            texts += decode_exactly(model, clips[at : at + batch], language, profile, tokens)
        return texts

    yield model.info, transcribe


def decode_exactly(
    model: Whisper, clips: list[Samples], language: str, profile: Profile, tokens: int
) -> list[str]:
    """Windows together, `tokens` each. Raises AssertionError where one ended before."""
    mel_BFT = log_mel(clips, model.info.num_mels)
    encoded = model.encode(mel_BFT, [profile] * len(clips))
    batch = model.new_decode_batch()
    batch.token_limit, batch.guarded = tokens, False
    options = DecodeOptions(language=language, timestamps=False)
    batch.join(range(len(clips)), encoded, [options] * len(clips))
    done: dict[int, Hypothesis] = {}
    while len(batch):
        done |= batch.step()
    said = [done[number].tokens for number in range(len(clips))]
    assert all(len(one) == tokens for one in said), [len(one) for one in said]
    return ["".join(piece.text for piece in model.split_text(one)) for one in said]


def _computes_in(info: ModelInfo) -> str:
    if info.weight_dtype == info.dtype:
        return info.dtype
    return f"{info.weight_dtype}, {info.dtype}"


def _item(number: int, clip: Samples, language: str) -> Item:
    pcm = np.clip(np.rint(clip * 32768), -32768, 32767).astype(np.int16)
    return Item(str(number), pcm, "", language)


if __name__ == "__main__":
    main()
