"""Times of the stages, taken from outside: whole calls, calls that are watched on their way, and
differences between calls that leave something out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from service.audio.mel import log_mel
from service.decode import rules
from service.decode.batch import WindowDecoder
from service.families.whisper import Whisper
from service.model import decoder, encoder
from service.model.weights import EncoderWeights
from service.profiles import Profile
from service.types import DecodeOptions, Encoded, Hypothesis, Samples

FEW_FRAMES = 8  # so few that their keys and values cost nothing
STEPS = 12  # of each kind, the quickest of which counts
OPTIONS = DecodeOptions(language="en", timestamps=False)

Seconds = dict[str, float]


@dataclass(slots=True)
class Watched:
    """Calls of one function, and the seconds that they took."""

    calls: int = 0
    seconds: float = 0.0


def endless(model: Whisper) -> Whisper:
    """The same weights, that never choose end-of-text: every window says as much as is asked."""
    vocabulary = model.checkpoint.vocabulary
    suppressed = (*vocabulary.suppress_tokens, vocabulary.eot)
    return Whisper(
        replace(model.checkpoint, vocabulary=replace(vocabulary, suppress_tokens=suppressed))
    )


@torch.inference_mode()
def stages(model: Whisper, clips: Sequence[Samples], profile: Profile, tokens: int) -> Seconds:
    """Seconds of each stage of a batch of windows, by name. `model` as `endless` gives it."""
    found: Seconds = {}
    mel_BFT, found["mel"] = _timed(lambda: log_mel(clips, model.info.num_mels))
    mel_BFT = mel_BFT.to(model.checkpoint.dtype)
    found |= _encoder(model, mel_BFT, profile)
    encoded = model.encode(mel_BFT, [profile] * len(clips))
    return found | _decoder(model, encoded, tokens) | _words(model, encoded, tokens)


def _encoder(model: Whisper, mel_BFT: Tensor, profile: Profile) -> Seconds:
    """By differences between encoders that end sooner, so that no layer has to be watched. One
    window after the other, as a CPU serves them."""
    weights, dense = model.checkpoint.weights.encoder, Profile("dense")
    each = torch.split(mel_BFT, 1)

    def timed(some: EncoderWeights, by: Profile) -> float:
        return _timed(lambda: [encoder.encode(some, mel_1FT, by) for mel_1FT in each])[1]

    _, stem = _timed(lambda: [encoder.embed(weights, mel_1FT) for mel_1FT in each])
    if profile.sparsity == 0:
        whole = timed(weights, profile)
        return {"stem": stem, "layers before": whole - stem, "thinning": 0.0, "layers after": 0.0}
    first = replace(weights, layers=weights.layers[: profile.layer])
    before, thinned, whole = timed(first, dense), timed(first, profile), timed(weights, profile)
    return {
        "stem": stem,
        "layers before": before - stem,
        "thinning": thinned - before,
        "layers after": whole - thinned,
    }


def _decoder(model: Whisper, encoded: Sequence[Encoded], tokens: int) -> Seconds:
    batch = _batch(model, tokens)
    with _watch(decoder, "join") as join, _watch(decoder, "step") as prefill:
        batch.join(range(len(encoded)), encoded, [OPTIONS] * len(encoded))
    with _watch(decoder, "step") as steps, _watch(rules, "apply") as applied:
        _, whole = _timed(lambda: _run(batch))
    return {
        "cross keys": _seen(join),
        "prefill": _seen(prefill),
        "steps": _seen(steps),
        "rules": _seen(applied),
        "choice": whole - steps.seconds - applied.seconds,
    }


def _words(model: Whisper, encoded: Sequence[Encoded], tokens: int) -> Seconds:
    """What is done for each window that ends where word times are asked for."""
    batch = _batch(model, tokens)
    batch.join(range(len(encoded)), encoded, [OPTIONS] * len(encoded))
    done = _run(batch)
    _, took = _timed(
        lambda: [model.find_words(one, done[key], OPTIONS) for key, one in enumerate(encoded)]
    )
    return {"words": took}


@torch.inference_mode()
def step_parts(model: Whisper, encoded: Sequence[Encoded], tokens: int) -> Seconds:
    """Seconds of the parts of one step halfway through `tokens`, by what a step without costs.

    The kinds of steps take turns, and the quickest of each counts: a difference of two that met
    other work on the machine says nothing.
    """
    few = [_shortened(one) for one in encoded]
    kinds = {
        "whole": _stepping(model, encoded, tokens // 2, logits=True),
        "silent": _stepping(model, encoded, tokens // 2, logits=False),
        "deaf": _stepping(model, few, tokens // 2, logits=False),
        "young": _stepping(model, few, 0, logits=False),
    }
    took = dict.fromkeys(kinds, float("inf"))
    for _ in range(STEPS):
        for name, step in kinds.items():
            took[name] = min(took[name], _timed(step)[1])
    return {
        "products": took["young"],
        "self keys and values": took["deaf"] - took["young"],
        "cross keys and values": took["silent"] - took["deaf"],
        "logits": took["whole"] - took["silent"],
    }


def _stepping(
    model: Whisper, encoded: Sequence[Encoded], said: int, *, logits: bool
) -> Callable[[], Tensor]:
    """One more step of windows that have said so many tokens."""
    batch = _batch(model, model.checkpoint.weights.dims.max_tokens)
    batch.join(range(len(encoded)), encoded, [OPTIONS] * len(encoded))
    weights = model.checkpoint.weights.decoder
    wanted: list[int] | None = None if logits else []
    some = torch.full((len(encoded), 1), model.checkpoint.vocabulary.sot)
    if said:
        decoder.step(weights, some.expand(-1, said), batch.cache, wanted=[])
    return lambda: decoder.step(weights, some, batch.cache, wanted=wanted)


def _shortened(one: Encoded) -> Encoded:
    few = slice(FEW_FRAMES)
    weights = None if one.log_weights_T is None else one.log_weights_T[few]
    return replace(
        one, states_TD=one.states_TD[few], positions_T=one.positions_T[few], log_weights_T=weights
    )


def _batch(model: Whisper, tokens: int) -> WindowDecoder:
    batch = model.new_decode_batch()
    batch.token_limit, batch.guarded = tokens, False
    return batch


def _run(batch: WindowDecoder) -> dict[int, Hypothesis]:
    done: dict[int, Hypothesis] = {}
    while len(batch):
        done |= batch.step()
    return done


@contextmanager
def _watch(module: Any, name: str) -> Iterator[Watched]:
    """Times the calls of a function that its module's other users look up by name."""
    found, function = Watched(), getattr(module, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            found.seconds += time.perf_counter() - began
            found.calls += 1

    setattr(module, name, watched)
    try:
        yield found
    finally:
        setattr(module, name, function)


def _seen(watched: Watched) -> float:
    assert watched.calls, "a function that is watched is not called any more"
    return watched.seconds


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    made = work()
    return made, time.perf_counter() - began
