from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from service.config import ServerConfig
from service.engine.engine import Engine
from service.engine.lane import Lane
from service.engine.turns import Turns
from service.metrics import Metrics, ModelMetrics
from service.model.protocol import SpeechModel
from service.profiles import BUILT_IN

from .jobs import WAIT_S

Start = Callable[..., Engine]


@pytest.fixture
def metrics() -> ModelMetrics:
    return Metrics().of("fake")


@pytest.fixture
def start(metrics: ModelMetrics) -> Iterator[Start]:
    """Starts engines, waits until they are ready, and stops them after the test."""
    engines: list[Engine] = []

    def starter(
        model: SpeechModel,
        profiles: Sequence[str] = ("dense",),
        clock: Callable[[], float] = time.monotonic,
        lane: Lane | None = None,
        turns: Turns | None = None,
        **settings: int,
    ) -> Engine:
        engine = Engine(
            lambda: model,
            ServerConfig(**settings),  # type: ignore[arg-type]
            metrics,
            warm_up=lambda: [BUILT_IN[name] for name in profiles],
            recovery_s=0.01,
            lane=lane,
            turns=turns,
            clock=clock,
        )
        engines.append(engine)
        engine.start()
        engine.wait_ready(WAIT_S)
        return engine

    yield starter
    for engine in engines:
        engine.stop()
