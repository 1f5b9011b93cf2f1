"""Recordings to learn from, and those of other speakers to choose on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.errors import ConfigError
from service.lab.packing import Item, evenly, packed
from service.lab.reproduce.ctc.letters import can_be_spelled, spelled
from service.types import WINDOW_SAMPLES

HELD_BACK = 10  # every so manieth speaker, or the last one
TOLD = 60  # windows whose letters are known by frame


@dataclass(frozen=True, slots=True)
class Lessons:
    """`told`: full windows whose letters are to be known by frame, `alone`: utterances, `joined`:
    the same in full windows; `held`: full windows of the speakers that nothing is learned of."""

    told: tuple[Item, ...]
    alone: tuple[Item, ...]
    joined: tuple[Item, ...]
    held: tuple[Item, ...]


def lessons(items: Sequence[Item]) -> Lessons:
    """Raises ConfigError where all is of one speaker, or too little of any to fill a window."""
    speakers = list(dict.fromkeys(item.speaker for item in items))
    if len(speakers) < 2:
        raise ConfigError("training needs two speakers: one to learn from, and one to choose on")
    back = speakers[HELD_BACK - 1 :: HELD_BACK] or speakers[-1:]
    fit = [
        item
        for item in items
        if spelled(item.text) and can_be_spelled(item.text) and len(item.pcm) <= WINDOW_SAMPLES
    ]
    learned = [item for item in fit if item.speaker not in back]
    joined = packed(learned)
    held = packed([item for item in fit if item.speaker in back])
    if not joined or not held:
        raise ConfigError("too little to train with: no speaker fills a window of 18 s")
    return Lessons(tuple(evenly(joined, TOLD)), tuple(learned), tuple(joined), tuple(held))
