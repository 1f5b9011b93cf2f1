"""A real server on a real port for tests, and recordings to send to it."""

from __future__ import annotations

import io
import threading
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import numpy as np
import torch

from service.api.app import create_app
from service.api.server import DrainingServer
from service.api.services import Services
from service.config import ServerConfig
from service.engine.engine import Engine
from service.families.fake import FakeDecodeBatch, FakeModel
from service.model.protocol import ModelInfo, SpeechModel
from service.types import SAMPLE_RATE, DecodeOptions, Encoded

PATIENCE_S = 60.0  # how long a test waits before it calls something stuck; never a measurement


def voice(seconds: float, pitch_hz: float = 120.0) -> bytes:
    """A wav file of a synthetic vowel that the VAD takes for speech."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    f0 = pitch_hz * (1 + 0.05 * np.sin(2 * np.pi * 0.7 * t))
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    first = 500 + 200 * np.sin(2 * np.pi * 2 * t)
    second = 1500 + 500 * np.sin(2 * np.pi * 1.3 * t)
    sound = np.zeros_like(t)
    for k in range(1, 31):
        near_first = 1 / (1 + ((k * f0 - first) / 80) ** 2)
        near_second = 0.6 / (1 + ((k * f0 - second) / 120) ** 2)
        sound += (near_first + near_second) * np.sin(k * phase)
    return wav(0.5 * sound / np.abs(sound).max())


def silence(seconds: float) -> bytes:
    """A wav file of zeros."""
    return wav(np.zeros(int(seconds * SAMPLE_RATE)))


def wav(samples: np.ndarray[Any, np.dtype[np.float64]]) -> bytes:
    """16-bit at 16 kHz, of one dimension for mono or (n, channels)."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def refused(answer: httpx.Response, status: int, code: str, param: str | None = None) -> str:
    """Checks an error of OpenAI's shape and returns its message."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["message"])


class EnglishModel(FakeModel):
    """The fake model, as an English-only checkpoint presents itself."""

    multilingual = False

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, languages={"en": "english"}, multilingual=self.multilingual)


class DigitsModel(EnglishModel):
    """The fake model, with a multilingual vocabulary of which one language was trained."""

    multilingual = True


@dataclass(slots=True)
class Gate:
    """Holds a FakeModel's device: `FakeModel(fail_encode_when=gate)` stops in encode until opened.

    Windows that are all silence pass, so that warm-up ends.
    """

    opened: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)

    def __call__(self, mel_FT: torch.Tensor) -> bool:
        if float(mel_FT.max() - mel_FT.min()) > 0:
            self.reached.set()
            assert self.opened.wait(PATIENCE_S)
        return False


@dataclass(frozen=True, slots=True)
class Running:
    """A server in a thread, and a client that talks to it."""

    url: str
    server: DrainingServer
    services: Services
    client: httpx.Client

    def transcribe(self, audio: bytes, **parameters: str) -> httpx.Response:
        """POST /transcribe with a multipart file."""
        return self.client.post("/transcribe", files={"file": audio}, data=parameters)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a sample, 0 where there is none yet: of every model, the first, or none."""
        sample = self.services.metrics.registry.get_sample_value
        first = {"model": self.services.models.first.name}
        found = (sample(name, {**model, **labels}) for model in ({}, first, {"model": ""}))
        return next((value for value in found if value is not None), 0.0)

    @property
    def engine(self) -> Engine:
        """Of the first model."""
        return self.services.models.first.engine

    def eventually(self, condition: Callable[[], bool]) -> None:
        """Waits until the condition holds; fails the test where it never does."""
        give_up = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up, "this never came true"
            time.sleep(0.01)


@contextmanager
def running(
    load: Callable[[], SpeechModel] | None = None,
    *,
    load_named: Callable[[str], SpeechModel] | None = None,
    wait: bool = True,
    **settings: Any,
) -> Iterator[Running]:
    """Serves `load()`, by default a FakeModel, on a free port; waits until it is ready.

    `load_named`: instead, of several models, the one that the settings call so.
    """
    config = ServerConfig(port=0, **{"drain_seconds": 5, "model": "fake", **settings})

    def load_model(settings: ServerConfig) -> SpeechModel:
        return load_named(settings.model) if load_named else (load or FakeModel)()

    app = create_app(config, load_model)
    services: Services = app.state.services
    server = DrainingServer(app, services)
    thread = threading.Thread(target=server.run, name="test-server")
    thread.start()
    try:
        give_up = time.monotonic() + PATIENCE_S
        while not server.started and thread.is_alive() and time.monotonic() < give_up:
            time.sleep(0.01)
        assert server.started
        if wait:
            services.models.first.engine.wait_ready(PATIENCE_S)
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
            yield Running(server.url, server, services, client)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


class RememberingBatch(FakeDecodeBatch):
    def __init__(self, wishes: list[DecodeOptions]) -> None:
        super().__init__()
        self.wishes = wishes

    def join(
        self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
    ) -> None:
        self.wishes.extend(options)
        super().join(keys, encoded, options)


class RememberingModel(FakeModel):
    """The fake model, and what was asked of its decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.wishes: list[DecodeOptions] = []

    def new_decode_batch(self) -> FakeDecodeBatch:
        return RememberingBatch(self.wishes)


@contextmanager
def remembered() -> Iterator[tuple[Running, list[DecodeOptions]]]:
    """A server, and what is asked of its decoder once it has warmed up."""
    model = RememberingModel()
    with running(lambda: model) as server:
        model.wishes.clear()
        yield server, model.wishes
