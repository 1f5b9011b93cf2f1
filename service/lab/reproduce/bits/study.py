"""What rounding costs: how far the next token's distribution moves, and words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from service.audio.mel import log_mel
from service.config import ServerConfig
from service.families.whisper import Whisper
from service.lab.breakdown import DENSE
from service.lab.outcomes import Figures, compared, outcome
from service.lab.packing import Item, to_float
from service.lab.reproduce.bits.rounding import (
    ATTENTION,
    DECODER,
    EMBEDDING,
    FEED_FORWARD,
    KINDS,
    STEM,
    Bits,
    rounded,
)
from service.lab.reproduce.record import Record, outcomes_from_json, outcomes_to_json
from service.lab.runs import How, Service
from service.model import decoder
from service.types import WINDOW_SAMPLES, DecodeOptions, Encoded

ALL, ENCODER = KINDS, (STEM, ATTENTION, FEED_FORWARD)
GROUP = 64
MAX_TOKENS = 200  # of a window, that are looked at


def variants() -> list[Bits]:
    """Every kind by itself, pairs of the encoder's, the encoder and all; then what a product
    multiplies rounded too."""
    alone = [(kind,) for kind in KINDS]
    together = [(STEM, ATTENTION), (STEM, FEED_FORWARD), (ATTENTION, FEED_FORWARD), ENCODER, ALL]
    made = [
        Bits(kinds, width, group)
        for width, group in ((8, 0), (4, 0), (4, GROUP))
        for kinds in (*alone, *together)
    ]
    return made + [
        Bits(kinds, 8, activations=8)
        for kinds in ((ATTENTION,), (FEED_FORWARD,), (DECODER,), (EMBEDDING,), ENCODER, ALL)
    ]


def worth_reading() -> list[Bits]:
    """Those whose words are counted, which takes longest."""
    return [
        Bits(ALL, 8),
        Bits(ENCODER, 8, activations=8),
        Bits(ALL, 8, activations=8),
        *(Bits((kind,), 4) for kind in KINDS),
        Bits((STEM, ATTENTION), 4),
        Bits(ENCODER, 4),
        Bits(ENCODER, 4, GROUP),
        Bits(ALL, 4, GROUP),
    ]


@dataclass(frozen=True, slots=True)
class Moved:
    """By window: the divergence of the next token's distribution from that of the model as it is,
    summed over its tokens, how many those are, and at how many another is likeliest."""

    divergence: tuple[float, ...]
    tokens: tuple[int, ...]
    flips: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Said:
    """A window, and what the model as it is says of it: tokens (1, N), which begin with the
    prompt, and the log-probabilities (M, V) of all that follows it."""

    mel_1FT: Tensor
    tokens_1N: Tensor
    logprobs_MV: Tensor


class Screen:
    """Windows that variants of a model are held against."""

    def __init__(self, model: Whisper, items: Sequence[Item]) -> None:
        """The first 30 s of each item count."""
        self._model = model
        self._said = [self._hear(item) for item in items]

    @torch.inference_mode()
    def moved(self, bits: Bits) -> Moved:
        checkpoint = self._model.checkpoint
        other = Whisper(replace(checkpoint, weights=rounded(checkpoint.weights, bits)))
        divergence, tokens, flips = [], [], []
        for said in self._said:
            found_MV = _logprobs(other, said.mel_1FT, said.tokens_1N, len(said.logprobs_MV))
            right_MV = said.logprobs_MV
            each_M = (right_MV.exp() * (right_MV - found_MV)).sum(-1)
            divergence.append(float(each_M.sum()))
            tokens.append(len(each_M))
            flips.append(int((found_MV.argmax(-1) != right_MV.argmax(-1)).sum()))
        return Moved(tuple(divergence), tuple(tokens), tuple(flips))

    @torch.inference_mode()
    def _hear(self, item: Item) -> _Said:
        options = DecodeOptions(item.language if self._model.info.multilingual else "en")
        mel_1FT = log_mel([to_float(item.pcm)[:WINDOW_SAMPLES]], self._model.info.num_mels)
        batch = self._model.new_decode_batch()
        batch.join([0], self._model.encode(mel_1FT, [DENSE]), [options])
        done: dict[int, Any] = {}
        while len(batch):
            done |= batch.step()
        said = list(done[0].tokens)[:MAX_TOKENS]
        prompt = self._model.checkpoint.vocabulary.prompt(options)
        tokens_1N = torch.tensor([[*prompt, *said]])
        follows = len(said) + 1
        return _Said(mel_1FT, tokens_1N, _logprobs(self._model, mel_1FT, tokens_1N, follows))


def _itself(model: Whisper) -> Whisper:
    return model


def _logprobs(model: Whisper, mel_1FT: Tensor, tokens_1N: Tensor, last: int) -> Tensor:
    """Of the last so many positions: (last, V)."""
    encoded: Encoded = model.encode(mel_1FT, [DENSE])[0]
    logits = decoder.forward(model.checkpoint.weights.decoder, tokens_1N, encoded.states_TD[None])
    return logits[0, -last:].log_softmax(-1)


def read(
    model: Whisper,
    items: Sequence[Item],
    wanted: Sequence[Bits],
    config: ServerConfig,
    record: Record,
    key: dict[str, Any],
    how: How,
    done: Callable[[], object],
) -> list[Figures]:
    """Words of the model as it is (the first) and of each variant, through the service's path."""
    outcomes, windows = {}, {}
    for bits in (None, *wanted):
        name = "dense" if bits is None else bits.name
        part = {**key, "words": name, "raw": how.raw}
        if (known := record.read(part)) is None:
            checkpoint = model.checkpoint
            weights = checkpoint.weights if bits is None else rounded(checkpoint.weights, bits)
            other = Whisper(replace(checkpoint, weights=weights))
            with Service(config, partial(_itself, other)) as service:
                run = service.run(items, DENSE, how)
            found = [outcome(item, answer) for item, answer in zip(items, run.answers, strict=True)]
            known = {"windows": run.num_windows, "outcomes": outcomes_to_json(found)}
            record.write(part, known)
        outcomes[name] = outcomes_from_json(known["outcomes"])
        windows[name] = known["windows"]
        done()
    return compared(outcomes, windows)
