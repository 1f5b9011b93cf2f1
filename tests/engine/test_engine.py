from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch

from service.audio.mel import log_mel
from service.config import ServerConfig
from service.engine import features as features_module
from service.engine.engine import Engine
from service.engine.probe import warm_up
from service.errors import CheckpointError, EngineError, NotReady, QueueFull
from service.families.fake import FakeModel
from service.metrics import ModelMetrics
from service.model.protocol import ModelInfo, SpeechModel
from service.profiles import BUILT_IN, Profile
from service.types import Encoded, Job

from .conftest import Start
from .jobs import (
    WAIT_S,
    HeldModel,
    expected_text,
    loud_at,
    make_job,
    make_jobs,
    text,
    text_of,
    tone,
)


def test_until_the_model_is_loaded_it_takes_no_work(metrics: ModelMetrics) -> None:
    loaded = threading.Event()

    def load() -> SpeechModel:
        assert loaded.wait(WAIT_S)
        return FakeModel()

    engine = Engine(load, ServerConfig(), metrics)
    assert metrics.every.registry.get_sample_value("winnow_ready", {"model": "fake"}) == 0
    engine.start()
    with pytest.raises(NotReady, match="loading"):
        engine.submit([make_job()])
    with pytest.raises(NotReady):
        _ = engine.model
    with pytest.raises(NotReady, match="loading"):
        engine.wait_ready(0.0)
    loaded.set()
    engine.wait_ready(WAIT_S)
    assert (engine.state, engine.reason) == ("ready", "")
    assert engine.model.info.name == "fake"
    engine.stop()
    assert engine.state == "stopped"


@pytest.mark.parametrize("error", [CheckpointError("no such model"), OSError("disk")])
def test_a_model_that_cannot_be_loaded_is_said_so(metrics: ModelMetrics, error: Exception) -> None:
    def load() -> SpeechModel:
        raise error

    engine = Engine(load, ServerConfig(), metrics)
    engine.start()
    with pytest.raises(type(error), match=str(error)):
        engine.wait_ready(WAIT_S)
    assert engine.state == "failed"
    assert str(error) in engine.reason
    with pytest.raises(NotReady, match=str(error)):
        engine.submit([make_job()])
    assert engine.drain(WAIT_S)
    engine.stop()


def test_a_model_that_fails_its_warm_up_is_not_served(metrics: ModelMetrics) -> None:
    engine = Engine(
        lambda: FakeModel(fail_encode_when=lambda _: True),
        ServerConfig(),
        metrics,
        warm_up=lambda: [BUILT_IN["dense"]],
    )
    engine.start()
    with pytest.raises(RuntimeError, match="told to fail"):
        engine.wait_ready(WAIT_S)
    assert engine.state == "failed"
    engine.stop()


class RecordingModel(FakeModel):
    def __init__(self) -> None:
        super().__init__()
        self.profiles: list[str] = []

    def encode(
        self,
        mel_BFT: torch.Tensor,
        profiles: Sequence[Profile],
        audio_frames: Sequence[int] | None = None,
    ) -> list[Encoded]:
        self.profiles += [profile.name for profile in profiles]
        return super().encode(mel_BFT, profiles, audio_frames)


def test_on_a_cpu_one_profile_shows_that_the_model_works(start: Start) -> None:
    model = RecordingModel()
    start(model, profiles=list(BUILT_IN))
    assert model.profiles == list(BUILT_IN)[:1]


class RecordingGpuModel(RecordingModel):
    @property
    def info(self) -> ModelInfo:
        return replace(super().info, device="cuda:0")


def test_on_a_gpu_every_profile_is_warm_before_the_first_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_cpu = partial(log_mel, device="cpu")
    monkeypatch.setattr(features_module, "log_mel", lambda windows, mels, _: on_cpu(windows, mels))
    model = RecordingGpuModel()
    warm_up(model, list(BUILT_IN.values()))
    assert model.profiles == list(BUILT_IN)


def test_a_full_queue_refuses_a_request_as_a_whole(start: Start) -> None:
    model = HeldModel()
    engine = start(model, max_queue_windows=5, max_decode_windows=1)
    model.hold()
    first = make_job("first")
    engine.submit([first])
    assert model.stepping.wait(WAIT_S)
    waiting = make_jobs("waiting", 4)
    engine.submit(waiting)
    refused = make_jobs("refused", 2)
    with pytest.raises(QueueFull) as full:
        engine.submit(refused)
    assert full.value.retry_after_s >= 1
    fits = make_job("fits")
    engine.submit([fits])
    model.release()
    for job in (first, *waiting, fits):
        job.reply.result(WAIT_S)
    assert not any(job.reply.done() for job in refused)


def test_a_drain_finishes_what_was_accepted_and_takes_no_more(
    start: Start, metrics: ModelMetrics
) -> None:
    model = HeldModel()
    engine = start(model, max_decode_windows=2)
    model.hold()
    jobs = [make_job("r", tone(300.0), index=i) for i in range(6)]
    engine.submit(jobs)
    assert model.stepping.wait(WAIT_S)
    engine.begin_drain()
    assert engine.state == "draining"
    assert metrics.every.registry.get_sample_value("winnow_ready", {"model": "fake"}) == 0
    with pytest.raises(NotReady, match="shutting down"):
        engine.submit([make_job("late")])
    again = make_job("r", tone(300.0), index=6)
    engine.submit([again], admitted=True)
    model.release()
    assert engine.drain(WAIT_S)
    assert text(again) == expected_text(tone(300.0))
    assert [text(job) for job in jobs] == [expected_text(tone(300.0))] * 6


def test_what_is_left_after_the_grace_is_answered(start: Start) -> None:
    model = HeldModel()
    engine = start(model, max_decode_windows=2)
    model.hold()
    jobs = make_jobs("r", 6)
    engine.submit(jobs)
    assert model.stepping.wait(WAIT_S)
    assert not engine.drain(0.0)
    assert [type(job.reply.exception(0)) for job in jobs] == [NotReady] * 6
    model.release()


def test_stop_answers_what_is_in_flight_and_ends_the_thread(start: Start) -> None:
    model = HeldModel()
    engine = start(model, max_decode_windows=2)
    model.hold()
    jobs = make_jobs("r", 6)
    engine.submit(jobs)
    assert model.stepping.wait(WAIT_S)
    stopper = threading.Thread(target=engine.stop)
    stopper.start()
    assert [type(job.reply.exception(WAIT_S)) for job in jobs] == [NotReady] * 6
    model.release()
    stopper.join(WAIT_S)
    assert not stopper.is_alive()
    assert "winnow-engine" not in [t.name for t in threading.enumerate()]
    engine.stop()


def test_it_can_be_stopped_while_it_loads(metrics: ModelMetrics) -> None:
    loading, loaded = threading.Event(), threading.Event()

    def load() -> SpeechModel:
        loading.set()
        assert loaded.wait(WAIT_S)
        return FakeModel()

    engine = Engine(load, ServerConfig(), metrics)
    engine.start()
    assert loading.wait(WAIT_S)
    stopper = threading.Thread(target=engine.stop)
    stopper.start()
    with pytest.raises(NotReady, match="stopped"):
        engine.wait_ready(WAIT_S)
    loaded.set()
    stopper.join(WAIT_S)
    assert engine.state == "stopped"
    assert "winnow-engine" not in [t.name for t in threading.enumerate()]


def test_an_engine_that_never_started_can_be_stopped(metrics: ModelMetrics) -> None:
    engine = Engine(FakeModel, ServerConfig(), metrics)
    engine.stop()
    assert engine.state == "stopped"


TONES = (300.0, 900.0, 1600.0)
BAD_ENCODE, BAD_STEP = 2500.0, 4000.0


class Crowd:
    """Clients on threads of their own that submit, leave and come back, and count every answer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self.jobs: list[tuple[Job, float]] = []
        self.answers: Counter[Job] = Counter()
        self.refused = 0

    def _answered(self, job: Job) -> None:
        with self._lock:
            self.answers[job] += 1

    def client(self, seed: int) -> None:
        dice = random.Random(seed)
        for turn in range(4):
            wishes = [
                dice.choice((*TONES, *TONES, BAD_ENCODE, BAD_STEP))
                for _ in range(dice.randint(1, 4))
            ]
            jobs = [
                make_job(
                    f"{seed}-{turn}", tone(hz, 0.5), index=i, profile=dice.choice(list(BUILT_IN))
                )
                for i, hz in enumerate(wishes)
            ]
            for job in jobs:
                job.reply.add_done_callback(lambda _, job=job: self._answered(job))  # type: ignore[misc]
            try:
                self._engine.submit(jobs)
            except QueueFull:
                with self._lock:
                    self.refused += 1
                continue
            with self._lock:
                self.jobs += zip(jobs, wishes, strict=True)
            match dice.randrange(4):
                case 0:
                    self._engine.withdraw(jobs)
                case 1:
                    jobs[-1].reply.cancel()
                case 2:
                    jobs[0].reply.exception(WAIT_S)
                    self._engine.withdraw(jobs)
                case _:
                    for job in jobs:
                        job.reply.exception(WAIT_S)


def test_in_a_crowd_every_job_is_answered_exactly_once_and_rightly(start: Start) -> None:
    engine = start(
        FakeModel(fail_encode_when=loud_at(BAD_ENCODE), fail_step_when=loud_at(BAD_STEP)),
        max_queue_windows=12,
        max_decode_windows=6,
    )
    crowd = Crowd(engine)
    clients = [threading.Thread(target=crowd.client, args=(seed,)) for seed in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(WAIT_S)
    assert engine.drain(WAIT_S)
    texts = {hz: expected_text(tone(hz, 0.5)) for hz in TONES}
    outcomes: Counter[str] = Counter()
    for job, hz in crowd.jobs:
        assert job.reply.done()
        assert crowd.answers[job] == 1
        if job.reply.cancelled():
            outcomes["cancelled"] += 1
        elif (error := job.reply.exception(0)) is not None:
            assert isinstance(error, EngineError)
            assert hz in (BAD_ENCODE, BAD_STEP)
            outcomes["failed"] += 1
        else:
            assert text_of(job.reply.result(0).hypothesis) == texts[hz]
            outcomes["done"] += 1
    assert outcomes.keys() == {"cancelled", "failed", "done"}
