"""Utterances of one speaker, joined to full windows: what a meeting or a podcast looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.types import SAMPLE_RATE, WINDOW_SAMPLES, Samples

Pcm = npt.NDArray[np.int16]

PAUSE_SAMPLES = 3 * SAMPLE_RATE // 10
LEAST_SAMPLES = 18 * SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Item:
    """A recording to transcribe, 16 kHz mono, and what is said in it."""

    name: str
    pcm: Pcm
    text: str
    language: str
    speaker: str = ""

    @property
    def seconds(self) -> float:
        return len(self.pcm) / SAMPLE_RATE


def to_float(pcm: Pcm) -> Samples:
    """16 bits to [-1, 1)."""
    return pcm.astype(np.float32) / np.float32(32768)


def packed(items: Sequence[Item]) -> list[Item]:
    """Windows of 18 to 30 s, each of neighbours of one speaker and language, 0.3 s between them.

    In the order of the items, as many as fit. What does not come to 18 s before the next one is
    too long for it, or before the speaker ends, is left out, and so is what is longer than 30 s.
    """
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.speaker, item.language), []).append(item)
    windows = (window for group in groups.values() for window in _filled(group))
    return [_joined(window) for window in windows if _length(window) >= LEAST_SAMPLES]


def _filled(items: Sequence[Item]) -> Iterator[list[Item]]:
    window: list[Item] = []
    for item in items:
        if len(item.pcm) > WINDOW_SAMPLES:
            continue
        if window and _length([*window, item]) > WINDOW_SAMPLES:
            yield window
            window = []
        window.append(item)
    if window:
        yield window


def _length(items: Sequence[Item]) -> int:
    return sum(len(item.pcm) for item in items) + (len(items) - 1) * PAUSE_SAMPLES


def _joined(items: Sequence[Item]) -> Item:
    pause = np.zeros(PAUSE_SAMPLES, np.int16)
    parts = [part for item in items for part in (pause, item.pcm)][1:]
    first = items[0]
    name = first.name if len(items) == 1 else f"{first.name} and {len(items) - 1} more"
    text = " ".join(item.text for item in items)
    return Item(name, np.concatenate(parts), text, first.language, first.speaker)


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items, as many of each speaker as possible, spread over what each says."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.speaker, []).append(item)
    shares = dict.fromkeys(groups, 0)
    for _ in range(min(count, len(items))):
        short = [name for name in groups if shares[name] < len(groups[name])]
        shares[min(short, key=lambda name: shares[name])] += 1
    return [
        group[i * len(group) // shares[name]]
        for name, group in groups.items()
        for i in range(shares[name])
    ]
