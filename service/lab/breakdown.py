"""How long the parts of a model's work take, by profile and batch: in turns, on real windows.

The parts are the model's own functions: an encoder cut off after some of its layers is timed like
a whole one, and what lies between is their difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from service.decode import rules
from service.decode.packed import empty_cache
from service.errors import ConfigError
from service.families.whisper import Whisper
from service.lab.evaluate import in_turns
from service.model import decoder
from service.model.cache import Cache
from service.model.sparsify import num_kept
from service.profiles import BUILT_IN, Profile

# Up to nothing but the stem; to the last layer before the drop; to the drop with what chooses;
# the whole encoder; keys and values of cross-attention; decoding a number of tokens.
PIECES = ("stem", "before", "drop", "encode", "cross", "steps")
WHOLE = PIECES[3:]  # what a window takes from end to end
DENSE = BUILT_IN["dense"]


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of the work on so many windows together."""

    piece: str
    profile: Profile
    batch: int = 1

    @property
    def name(self) -> str:
        return f"{self.piece} of {self.profile.name} x{self.batch}"


@dataclass(frozen=True, slots=True)
class Timed:
    """A job's seconds per window, one for each round."""

    piece: str
    profile: str
    batch: int
    seconds: tuple[float, ...]

    @property
    def least(self) -> float:
        """What else ran can only have added to it."""
        return min(self.seconds)


class Stopwatch:
    """Times jobs on a model that nothing else uses meanwhile."""

    def __init__(self, model: Whisper, mel_BFT: Tensor, num_tokens: int) -> None:
        """`mel_BFT`: as many windows as the largest batch, (B, mels, 3000); `num_tokens`: how many
        are decoded, the same whatever a window says."""
        self._model, self._num_tokens = model, num_tokens
        self._mel_BFT = mel_BFT.to(model.checkpoint.device, model.checkpoint.dtype)
        self._cut = cache(self._cut_off)

    def times(
        self, jobs: Sequence[Job], num_rounds: int, done: Callable[[], object] = lambda: None
    ) -> list[Timed]:
        """Every job's times; each round begins with the next one. `done` after each."""

        def seconds(job: Job) -> float:
            took = self._seconds(job)
            done()
            return took

        took = in_turns(jobs, num_rounds, seconds)
        return [Timed(j.piece, j.profile.name, j.batch, tuple(took[j.name])) for j in jobs]

    @torch.inference_mode()
    def _seconds(self, job: Job) -> float:
        """Per window."""
        profile, layer = job.profile, job.profile.layer
        match job.piece:
            case "stem":
                work = self._encoding(DENSE, 0, job.batch)
            case "before":
                work = self._encoding(DENSE, layer, job.batch)
            case "drop":
                work = self._encoding(profile, layer, job.batch)
            case "encode":
                work = self._encoding(profile, self._model.info.num_encoder_layers, job.batch)
            case "cross":
                work = self._joining(profile, job.batch)
            case "steps":
                work = self._decoding(profile, job.batch)
            case _:
                raise ValueError(f"unknown piece {job.piece!r}; use {', '.join(PIECES)}")
        self._wait()
        began = time.perf_counter()
        work()
        self._wait()
        return (time.perf_counter() - began) / job.batch

    def _wait(self) -> None:
        """Until the device has done what it was told."""
        if self._mel_BFT.is_cuda:
            torch.cuda.synchronize(self._mel_BFT.device)

    def _encoding(self, profile: Profile, num_layers: int, batch: int) -> Callable[[], object]:
        model, mel_BFT = self._cut(num_layers), self._mel_BFT[:batch]
        return lambda: model.encode(mel_BFT, [profile] * batch)

    def _cut_off(self, num_layers: int) -> Whisper:
        """The model with its first encoder layers only."""
        checkpoint = self._model.checkpoint
        encoder = checkpoint.weights.encoder
        encoder = replace(encoder, layers=encoder.layers[:num_layers])
        return Whisper(replace(checkpoint, weights=replace(checkpoint.weights, encoder=encoder)))

    def _states(self, profile: Profile, batch: int) -> Tensor:
        """As many as the profile leaves: what they hold makes no difference to the time."""
        dims, weights = self._model.info, self._model.checkpoint.weights.decoder
        kept = num_kept(num_kept(dims.num_frames, profile.sparsity), profile.late)
        width = weights.positions_TD.shape[1]
        generator = torch.Generator().manual_seed(0)
        states = torch.randn(batch, kept, width, generator=generator)
        return states.to(weights.positions_TD)

    def _joining(self, profile: Profile, batch: int) -> Callable[[], object]:
        weights, states_BTD = self._model.checkpoint.weights.decoder, self._states(profile, batch)
        return lambda: decoder.join(weights, empty_cache(weights), states_BTD)

    def _decoding(self, profile: Profile, batch: int) -> Callable[[], object]:
        weights = self._model.checkpoint.weights.decoder
        held = empty_cache(weights)
        decoder.join(weights, held, self._states(profile, batch))
        return lambda: self._decode(held, batch)

    def _decode(self, held: Cache, batch: int) -> None:
        """The steps of a decode batch, choosing a token included; the same ones are fed to all."""
        weights, token = self._model.checkpoint.weights.decoder, 0
        tokens_B1 = torch.full((batch, 1), token, device=self._mel_BFT.device)
        for number in range(self._num_tokens):
            logits_BNV = decoder.step(weights, tokens_B1, held)
            said = rules.said(self._model.rules, [[token] * number] * batch, [True] * batch)
            allowed_BV = rules.apply(self._model.rules, logits_BNV[:, -1], said)
            rules.likeliest(allowed_BV.log_softmax(-1)).tolist()


def timeable(model: object) -> Whisper:
    """Raises ConfigError for a model without layers, which is the fake one."""
    if not isinstance(model, Whisper):
        raise ConfigError("the model has no layers to time; use a Whisper model")
    return model
