"""What the engine says of itself: where time went, how fast windows leave, which model it is."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from service.config import ServerConfig
from service.engine.intake import Intake
from service.engine.schedule import Load, next_batch
from service.errors import QueueFull
from service.families.fake import FakeDecodeBatch, FakeModel
from service.metrics import Metrics, ModelMetrics
from service.types import DecodeOptions, Encoded

from .conftest import Start
from .jobs import WAIT_S, make_job, make_jobs, tone, until

JOIN_S = 0.2


class SlowJoinModel(FakeModel):
    def new_decode_batch(self) -> FakeDecodeBatch:
        return _SlowJoinBatch()


class _SlowJoinBatch(FakeDecodeBatch):
    def join(
        self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
    ) -> None:
        time.sleep(JOIN_S)
        super().join(keys, encoded, options)


def test_decode_time_includes_the_join(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Load] = []

    def watched(queue: Any, load: Load, *arguments: Any) -> Any:
        loads.append(load)
        return next_batch(queue, load, *arguments)

    monkeypatch.setattr("service.engine.intake.next_batch", watched)
    engine = start(SlowJoinModel(), batch_wait_ms=10_000, max_batch_windows=2)
    jobs = [make_job(f"r{i}", tone(300.0)) for i in range(2)]
    engine.submit(jobs)
    shares = [job.reply.result(WAIT_S).timings.decode for job in jobs]
    assert min(shares) >= JOIN_S / 2
    assert sum(shares) < 2 * JOIN_S  # each pays its share, not the whole
    assert max(load.decode_s for load in loads) >= JOIN_S


def test_ahead_of_a_newcomer_is_a_turn_of_each_request_on_the_device_too() -> None:
    intake = Intake(ServerConfig(), Metrics().of("fake"), lambda: 0.0)
    assert intake.waiting()[0] == 0
    intake.open()
    intake.submit([*make_jobs("hour", 120), *make_jobs("clip", 1)])
    assert intake.waiting()[0] == 2 + 1
    encoded = intake.next_jobs(Load({}))
    assert {job.request_id for job in encoded} == {"hour", "clip"}
    assert intake.waiting()[0] == 2 + 1
    for job in encoded:
        job.reply.set_result(None)  # type: ignore[arg-type]
    assert intake.waiting()[0] == 2


def test_an_hour_alone_keeps_nobody_out_however_many_slots_it_holds() -> None:
    intake = Intake(ServerConfig(), Metrics().of("fake"), lambda: 0.0)
    intake.open()
    intake.submit(make_jobs("hour", 120))
    taken = 0
    while taken < 16:
        taken += len(intake.next_jobs(Load({"hour": taken} if taken else {})))
    assert intake.waiting()[0] == 2


def test_a_rest_is_not_taken_for_slowness() -> None:
    now = [0.0]
    intake = Intake(ServerConfig(max_queue_windows=64), Metrics().of("fake"), lambda: now[0])
    intake.open()
    early = make_job("early")
    intake.submit([early])
    reply: Future[Any] = early.reply
    now[0] = 10.0
    reply.set_result(None)
    now[0] = 60.0
    intake.submit(make_jobs("late", 64))
    now[0] = 62.0
    with pytest.raises(QueueFull) as refused:
        intake.submit(make_jobs("more", 20))
    assert refused.value.retry_after_s == pytest.approx(40.0)


def test_the_metrics_name_the_model(start: Start, metrics: ModelMetrics) -> None:
    engine = start(FakeModel(name="parrot"))
    assert engine.num_threads >= 1
    labels = {
        "model": "fake",
        "name": "parrot",
        "device": "cpu",
        "dtype": "float32",
        "weight_dtype": "float32",
    }
    labels |= {"threads": str(engine.num_threads), "parameters": "0"}
    assert metrics.every.registry.get_sample_value("winnow_model_info", labels) == 1


def test_an_answered_window_is_let_go_at_once(start: Start) -> None:
    """Without waiting for a garbage collection: an hour's windows are 400 MB of states."""
    engine = start(FakeModel())
    samples = tone(300.0)
    alive = weakref.ref(samples)
    job = make_job("request", samples)
    del samples
    gc.collect()
    gc.disable()
    try:
        engine.submit([job])
        job.reply.result(WAIT_S)
        del job
        until(lambda: alive() is None)
    finally:
        gc.enable()
