"""Noise mixed into speech at a chosen ratio."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from service.lab.packing import Item, Pcm

FULL_SCALE = 32767


def halves(clips: Sequence[Pcm], split: str) -> list[Pcm]:
    """The first half of each clip for `train`, the second for any other split.

    There are too few noises to part them by recording, and noise of one place is alike throughout.
    """
    return [
        clip[: len(clip) // 2] if split == "train" else clip[len(clip) // 2 :] for clip in clips
    ]


def with_noise(item: Item, noises: Sequence[Pcm], snr_db: float, seed: int) -> Item:
    """The item with one of the noises, from one of its places on and around its end.

    Which one and where from is drawn from the seed and the item's name, so that an item sounds
    the same in any order and selection, and at 5 dB has the noise of 10 dB, louder. The ratio is
    that of mean power over the whole item, pauses included. What would clip is made quieter as a
    whole.
    """
    rng = np.random.default_rng([seed, zlib.crc32(item.name.encode())])
    clip = noises[int(rng.integers(len(noises)))]
    start = int(rng.integers(len(clip)))
    noise = np.take(clip, np.arange(start, start + len(item.pcm)), mode="wrap").astype(np.float64)
    speech = item.pcm.astype(np.float64)
    power = np.square(noise).mean()
    gain = np.sqrt(np.square(speech).mean() / power / 10 ** (snr_db / 10)) if power else 0.0
    mixed = speech + gain * noise
    mixed *= min(1.0, FULL_SCALE / max(float(np.abs(mixed).max(initial=0)), 1.0))
    pcm = np.rint(mixed).astype(np.int16)
    return Item(item.name, pcm, item.text, item.language, item.speaker)
