"""Jobs to test the engine with: tones, which the fake model tells apart."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from service.audio.mel import log_mel
from service.families.fake import FakeDecodeBatch, FakeModel
from service.profiles import BUILT_IN
from service.types import SAMPLE_RATE, DecodeOptions, Hypothesis, Job, Samples, Window

WAIT_S = 60.0  # generous: it is only reached by a hang
NEVER = math.inf


def tone(hertz: float, seconds: float = 1.0) -> Samples:
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


SILENCE = np.zeros(SAMPLE_RATE, dtype=np.float32)


def until(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.001)


def make_job(
    request_id: str = "request",
    samples: Samples = SILENCE,
    *,
    index: int = 0,
    profile: str = "dense",
    deadline: float = NEVER,
    submitted: float = 0.0,
    resumed: bool = False,
) -> Job:
    window = Window(index, 30.0 * index, samples)
    return Job(request_id, window, BUILT_IN[profile], DecodeOptions(), deadline, resumed, submitted)


def make_jobs(request_id: str, number: int, submitted: float = 0.0) -> list[Job]:
    return [make_job(request_id, index=i, submitted=submitted) for i in range(number)]


class HeldModel(FakeModel):
    """A fake whose steps, once `hold` is called, wait for `release`; it says when one waits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._free = threading.Event()
        self._free.set()
        self.stepping = threading.Event()

    def hold(self) -> None:
        self.stepping.clear()
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def new_decode_batch(self) -> FakeDecodeBatch:
        return _HeldBatch(self._free, self.stepping, self._step_seconds)


class _HeldBatch(FakeDecodeBatch):
    def __init__(
        self, free: threading.Event, stepping: threading.Event, step_seconds: float
    ) -> None:
        super().__init__(step_seconds)
        self._free = free
        self._stepping = stepping

    def step(self) -> dict[int, Hypothesis]:
        self._stepping.set()
        assert self._free.wait(WAIT_S)
        return super().step()


def loud_at(hertz: float) -> Callable[[torch.Tensor], bool]:
    """Recognises the mel of `tone(hertz)` by its words."""
    model = FakeModel()
    (wanted,) = model.encode(log_mel([tone(hertz)], 80, "cpu"), [BUILT_IN["dense"]])

    def recognise(mel_FT: torch.Tensor) -> bool:
        (encoded,) = model.encode(mel_FT[None], [BUILT_IN["dense"]])
        return torch.equal(encoded.states_TD, wanted.states_TD)

    return recognise


def expected_text(samples: Samples) -> str:
    """What the fake model makes of the window alone, without any engine."""
    model = FakeModel()
    batch = model.new_decode_batch()
    mel_BFT = log_mel([samples], 80, "cpu")
    batch.join([0], model.encode(mel_BFT, [BUILT_IN["dense"]]), [DecodeOptions()])
    while len(batch):
        done = batch.step()
    return text_of(done[0])


def text_of(hypothesis: Hypothesis) -> str:
    return "".join(piece.text for piece in FakeModel().split_text(hypothesis.tokens))


def text(job: Job) -> str:
    return text_of(job.reply.result(WAIT_S).hypothesis)
