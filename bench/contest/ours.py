"""Winnow as a contestant: `side.py`'s messages, and with them the name of a profile.

python -m bench.contest.ours MODEL --threads 2 --dtype float32
"""

from __future__ import annotations

import argparse
import logging
import time

import numpy as np
import torch

from bench.contest.side import open_answers, read_messages, rss_mb, tell
from service import __version__
from service.config import ServerConfig
from service.lab.packing import Item
from service.lab.runs import How, Service
from service.model.load import load_model
from service.profiles import load_profiles
from service.types import Samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--max-batch", type=int, default=32)
    args = parser.parse_args()
    answers = open_answers()
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    config = ServerConfig(
        model=args.model,
        dtype=args.dtype,
        threads=args.threads,
        max_batch_windows=args.max_batch,
    )

    def load() -> object:
        torch.set_num_threads(args.threads)
        return load_model(config.model, config.device, config.dtype, config.cache_dir)

    with Service(config, load) as service:
        profiles = load_profiles(None, args.model)
        tell(answers, {"version": f"winnow {__version__}", "compute": service.info.dtype})
        for asked in read_messages():
            with np.load(asked["clips"]) as file:
                clips = [file[f"arr_{number}"] for number in range(len(file.files))]
            items = [_item(number, clip, asked["language"]) for number, clip in enumerate(clips)]
            how = How(concurrency=asked["batch"])
            began = time.perf_counter()
            run = service.run(items, profiles[asked["profile"]], how)
            seconds = time.perf_counter() - began
            texts = [answer.text for answer in run.answers]
            tell(answers, {"texts": texts, "seconds": seconds, "rss_mb": rss_mb()})


def _item(number: int, clip: Samples, language: str) -> Item:
    pcm = np.clip(np.rint(clip * 32768), -32768, 32767).astype(np.int16)
    return Item(str(number), pcm, "", language)


if __name__ == "__main__":
    main()
