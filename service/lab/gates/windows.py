"""Recordings to windows with what the dense model says of them: what gates learn to keep."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from service.audio.mel import log_mel
from service.engine.features import features_of
from service.families.whisper import Whisper
from service.lab.breakdown import DENSE
from service.lab.gates.forward import Example
from service.lab.packing import Item, to_float
from service.lab.reproduce.record import digest
from service.model.checkpoint import load_checkpoint
from service.types import WINDOW_SAMPLES, DecodeOptions, Hypothesis

AT_ONCE = 16  # windows that are decoded together
TEXTS = "texts.json"


@dataclass(frozen=True, slots=True)
class Said:
    """A recording of at most 30 s, and the tokens that the dense model makes of it."""

    item: Item
    tokens: tuple[int, ...]

    def example(self, model: Whisper) -> Example:
        info, vocabulary = model.info, model.checkpoint.vocabulary
        prompt = vocabulary.prompt(DecodeOptions(language_of(model, self.item)))
        tokens = [*prompt, *self.tokens, vocabulary.eot]
        return Example(
            log_mel([to_float(self.item.pcm)], info.num_mels),
            max(1, len(self.item.pcm) * info.num_frames // WINDOW_SAMPLES),
            torch.tensor([tokens]),
            len(self.tokens) + 1,
            self.item.language,
        )


def language_of(model: Whisper, item: Item) -> str | None:
    return item.language if model.info.multilingual else "en"


def whole_windows(items: Sequence[Item]) -> list[Item]:
    """Those that fit one window."""
    return [item for item in items if 0 < len(item.pcm) <= WINDOW_SAMPLES]


def heard(
    name: str,
    items: Sequence[Item],
    folder: Path,
    done: Callable[[int], object] = lambda count: None,
) -> list[Said]:
    """What the model `name`, dense and as it is served, says of each, greedily and with timestamps;
    without those that it does not end, which are no example to anybody.

    What was said is kept in `folder`, and not decoded again there.
    """
    path, key = folder / TEXTS, {"model": name, "items": digest(items)}
    texts = _read(path, key)
    if texts is None:
        model = Whisper(load_checkpoint(name, "cpu"))
        texts = [list(one.tokens) if one.ended else [] for one in _decoded(model, items, done)]
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps({**key, "texts": texts}))
        beside.replace(path)
    return [Said(item, tuple(text)) for item, text in zip(items, texts, strict=True) if text]


def _read(path: Path, key: dict[str, str]) -> list[list[int]] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    texts: list[list[int]] = found.pop("texts", [])
    return texts if found == key else None


def _decoded(
    model: Whisper, items: Sequence[Item], done: Callable[[int], object]
) -> Iterator[Hypothesis]:
    for first in range(0, len(items), AT_ONCE):
        some = items[first : first + AT_ONCE]
        batch = model.new_decode_batch()
        features = features_of([to_float(item.pcm) for item in some], model.info)
        options = [DecodeOptions(language_of(model, item)) for item in some]
        keys = range(len(some))
        encoded = model.encode(features.values_BFT, [DENSE] * len(some), features.sounding)
        batch.join(keys, encoded, options)
        found: dict[int, Hypothesis] = {}
        while len(batch):
            found |= batch.step()
        yield from (found[key] for key in keys)
        done(len(some))
