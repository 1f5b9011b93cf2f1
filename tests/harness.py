"""A pipeline on a real engine and the fake model, and recordings and requests for it."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
import torch

from service.audio.reader import AudioReader
from service.config import ServerConfig
from service.engine.engine import Engine
from service.families.fake import FakeModel
from service.metrics import Metrics
from service.model.protocol import SpeechModel
from service.model.sparsify import num_kept
from service.pipeline import Pipeline
from service.profiles import BUILT_IN, Profile
from service.types import SAMPLE_RATE, DecodeOptions, Thresholds, TranscribeRequest, Transcript

READY_S = 30.0
LOW_HZ, HIGH_HZ = 300.0, 4000.0


def num_decoded(name: str, milder: float = 1.0) -> int:
    """Of a window's 1500 frames those that a built-in profile gives to the decoder.

    `milder`: the share of its sparsity that is left where a window is decoded again.
    """
    profile = BUILT_IN[name]
    left = num_kept(1500, profile.sparsity * milder)
    return num_kept(left, profile.late * milder)


@dataclass(frozen=True, slots=True)
class Service:
    engine: Engine
    pipeline: Pipeline
    reader: AudioReader
    metrics: Metrics

    def sample(self, name: str, **labels: str) -> float:
        """Of a series of every model or of this one's."""
        registry = self.metrics.registry
        of_all = registry.get_sample_value(name, labels)
        return of_all or registry.get_sample_value(name, {"model": "fake", **labels}) or 0.0


@contextmanager
def running(
    model: SpeechModel | None = None,
    engine_class: type[Engine] = Engine,
    profiles: Mapping[str, Profile] = BUILT_IN,
    **settings: Any,
) -> Iterator[Service]:
    config = ServerConfig(**settings)
    metrics = Metrics()
    reader = AudioReader(config.audio_threads, config.max_audio_seconds, metrics)
    series = metrics.of("fake")
    engine = engine_class(lambda: model or FakeModel(), config, series)
    pipeline = Pipeline(engine, config, series, profiles, reader)
    engine.start()
    try:
        engine.wait_ready(READY_S)
        yield Service(engine, pipeline, reader, metrics)
    finally:
        engine.stop()
        reader.close()


def wav(*tones: tuple[float, float]) -> io.BytesIO:
    """A recording of (hertz, seconds) tones, 0 Hz for silence."""
    waves = [
        0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)
        for hertz, seconds in tones
    ]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(waves), SAMPLE_RATE, format="WAV")
    file.seek(0)
    return file


def request(profile: str = "dense", **more: Any) -> TranscribeRequest:
    """Without VAD, and without its witness: it hears nobody speak in tones."""
    options = DecodeOptions(**more.pop("options", {}))
    unheard: dict[str, Any] = {"vad": False, "thresholds": Thresholds(no_speech=1.0)}
    return TranscribeRequest(BUILT_IN[profile], options, **(unheard | more))


def transcribe(service: Service, source: io.BytesIO, asked: TranscribeRequest) -> Transcript:
    return asyncio.run(service.pipeline.transcribe(source, asked))


class HeldDevice:
    """A predicate of the fake model that holds the device until it is released."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.release = threading.Event()

    def __call__(self, mel_FT: torch.Tensor) -> bool:
        self.reached.set()
        self.release.wait(READY_S)
        return False


@contextmanager
def held_workers(service: Service) -> Iterator[None]:
    """Whatever is being decoded, or will be, waits meanwhile."""
    service.reader.start()
    pids = service.reader.worker_pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids & service.reader.worker_pids:
            os.kill(pid, signal.SIGCONT)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(READY_S):
        while not condition():
            await asyncio.sleep(0.005)
