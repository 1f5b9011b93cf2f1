from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest
import torch
from prometheus_client import CollectorRegistry

from service.engine.engine import Engine
from service.engine.queue import TURN_WINDOWS
from service.engine.schedule import next_batch
from service.errors import DeadlineExceeded, EngineError, NotReady
from service.families.fake import FakeModel
from service.metrics import ModelMetrics
from service.profiles import Profile
from service.types import Encoded
from tests.harness import num_decoded

from .conftest import Start
from .jobs import SILENCE, WAIT_S, HeldModel, expected_text, loud_at, make_job, text, tone, until

GOOD, OTHER, BAD = 300.0, 900.0, 2500.0


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(name, {"model": "fake", **labels})
    assert found is not None
    return found


def await_ready(engine: Engine) -> None:
    until(lambda: engine.state == "ready")


def test_every_window_gets_its_own_text_whatever_it_shares_a_batch_with(start: Start) -> None:
    engine = start(FakeModel(), batch_wait_ms=50)
    tones = [200.0 * (i + 1) for i in range(12)]
    jobs = [make_job(f"r{i}", tone(hz, 0.5 + i / 4)) for i, hz in enumerate(tones)]
    for job in jobs:
        engine.submit([job])
    texts = [text(job) for job in jobs]
    assert texts == [expected_text(job.window.samples) for job in jobs]
    assert len(set(texts)) == len(texts)


def test_a_result_says_what_it_cost_and_the_metrics_what_was_done(
    start: Start, metrics: ModelMetrics
) -> None:
    engine = start(FakeModel(step_seconds=0.001), max_decode_windows=8)
    jobs = [
        make_job("file", tone(GOOD, 3), index=i, profile="fast", submitted=time.monotonic())
        for i in range(3)
    ]
    engine.submit(jobs)
    for job in jobs:
        result = job.reply.result(WAIT_S)
        timings = result.timings
        assert min(timings.queue, timings.mel, timings.encode, timings.decode) > 0
        assert timings.queue + timings.mel + timings.encode + timings.decode <= timings.total
        assert result.hypothesis.kept_frames == num_decoded("fast")
    registry = metrics.every.registry
    frames = {
        o: value(registry, "winnow_frames_total", profile="fast", outcome=o)
        for o in ("kept", "dropped")
    }
    kept = 3 * num_decoded("fast")
    assert frames == {"kept": kept, "dropped": 3 * 1500 - kept}
    assert value(registry, "winnow_batch_windows_sum") == 3
    assert value(registry, "winnow_queue_windows") == 0
    assert value(registry, "winnow_ready") == 1


@pytest.mark.parametrize("stage", ["encode", "step"])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_window_that_breaks_the_model_fails_alone(start: Start, stage: str, place: int) -> None:
    is_bad = loud_at(BAD)
    model = (
        FakeModel(fail_encode_when=is_bad)
        if stage == "encode"
        else FakeModel(fail_step_when=is_bad)
    )
    engine = start(model, batch_wait_ms=10_000)
    jobs = [make_job(f"r{i}", tone(BAD if i == place else GOOD)) for i in range(8)]
    engine.submit(jobs)
    with pytest.raises(EngineError, match=r"the model failed on this window \(RuntimeError\)"):
        jobs[place].reply.result(WAIT_S)
    for job in jobs[:place] + jobs[place + 1 :]:
        assert text(job) == expected_text(job.window.samples)
    assert engine.state == "ready"
    later = make_job("later", tone(OTHER), submitted=-100.0)
    engine.submit([later])
    assert text(later) == expected_text(later.window.samples)


def test_several_bad_windows_fail_and_none_else(start: Start) -> None:
    engine = start(
        FakeModel(fail_encode_when=loud_at(BAD), fail_step_when=loud_at(OTHER)),
        batch_wait_ms=10_000,
    )
    kinds = [GOOD, BAD, OTHER, GOOD, OTHER, BAD, GOOD, OTHER]
    jobs = [make_job(f"r{i}", tone(hz)) for i, hz in enumerate(kinds)]
    engine.submit(jobs)
    errors = [job.reply.exception(WAIT_S) for job in jobs]
    assert [error is None for error in errors] == [hz == GOOD for hz in kinds]
    assert engine.state == "ready"


def test_samples_that_cannot_be_transformed_fail_alone(start: Start) -> None:
    engine = start(FakeModel(), batch_wait_ms=50)
    bad = make_job("bad", tone(GOOD).reshape(2, -1))
    good = make_job("good", tone(GOOD))
    engine.submit([bad])
    engine.submit([good])
    assert isinstance(bad.reply.exception(WAIT_S), EngineError)
    assert text(good) == expected_text(good.window.samples)


def test_errors_and_logs_say_nothing_of_the_audio(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    spoken = "my secret"

    def fail(mel_FT: torch.Tensor) -> bool:
        if loud_at(BAD)(mel_FT):
            raise ValueError(spoken)
        return False

    engine = start(FakeModel(fail_encode_when=fail))
    job = make_job("bad", tone(BAD))
    engine.submit([job])
    error = job.reply.exception(WAIT_S)
    assert isinstance(error, EngineError)
    assert spoken not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "encode failed, 1 windows, ValueError" in caplog.text
    assert spoken not in caplog.text


@pytest.mark.parametrize("stage", ["encode", "step"])
def test_a_lost_device_answers_everybody_and_comes_back(
    start: Start, metrics: ModelMetrics, stage: str
) -> None:
    lost = threading.Event()

    def is_lost(_: torch.Tensor) -> bool:
        return lost.is_set()

    model = (
        FakeModel(fail_encode_when=is_lost)
        if stage == "encode"
        else FakeModel(fail_step_when=is_lost)
    )
    engine = start(model)
    lost.set()
    jobs = [make_job(f"r{i % 3}", tone(GOOD), index=i) for i in range(20)]
    engine.submit(jobs)
    for job in jobs:
        assert isinstance(job.reply.exception(WAIT_S), EngineError)
    assert engine.state == "failed"
    assert "told to fail" in engine.reason
    assert value(metrics.every.registry, "winnow_ready") == 0
    with pytest.raises(NotReady) as refused:
        engine.submit([make_job("late", tone(GOOD))])
    assert refused.value.retry_after_s > 0
    lost.clear()
    await_ready(engine)
    job = make_job("again", tone(GOOD))
    engine.submit([job])
    assert text(job) == expected_text(job.window.samples)
    assert value(metrics.every.registry, "winnow_ready") == 1


def test_a_window_cancelled_while_it_waits_is_never_encoded(start: Start) -> None:
    model = HeldModel(fail_encode_when=loud_at(BAD))
    engine = start(model, max_decode_windows=1)
    model.hold()
    first = make_job("first", tone(GOOD))
    engine.submit([first])
    assert model.stepping.wait(WAIT_S)
    second, third = make_job("second", tone(BAD)), make_job("third", tone(OTHER))
    engine.submit([second, third])
    engine.withdraw([second])
    model.release()
    assert text(third) == expected_text(third.window.samples)
    assert text(first) == expected_text(first.window.samples)
    assert second.reply.cancelled()


@pytest.mark.parametrize("leave", ["withdraw", "cancel"])
def test_a_window_cancelled_while_it_decodes_frees_its_slot(start: Start, leave: str) -> None:
    model = HeldModel()
    engine = start(model, max_decode_windows=1)
    model.hold()
    endless, waiting = make_job("endless", tone(GOOD, 30)), make_job("waiting", tone(OTHER))
    engine.submit([endless])
    assert model.stepping.wait(WAIT_S)
    engine.submit([waiting])
    if leave == "withdraw":
        engine.withdraw([endless])
    else:
        endless.reply.cancel()
    model.release()
    assert text(waiting) == expected_text(waiting.window.samples)
    assert endless.reply.cancelled()


def test_deadlines_pass_while_waiting_and_while_decoding(start: Start) -> None:
    now = [0.0]
    model = HeldModel()
    engine = start(model, clock=lambda: now[0], max_decode_windows=1, batch_wait_ms=0)
    model.hold()
    decoding = make_job("decoding", tone(GOOD, 30), deadline=10.0)
    waiting = make_job("waiting", tone(GOOD), deadline=10.0)
    patient = make_job("patient", tone(OTHER), deadline=10.1)
    engine.submit([decoding])
    assert model.stepping.wait(WAIT_S)
    engine.submit([waiting, patient])
    now[0] = 10.0
    model.release()
    for job in (decoding, waiting):
        assert isinstance(job.reply.exception(WAIT_S), DeadlineExceeded)
    assert text(patient) == expected_text(patient.window.samples)


def test_requests_are_answered_in_turns(start: Start) -> None:
    model = HeldModel()
    engine = start(model, max_decode_windows=2, max_batch_windows=1)
    model.hold()
    order: list[str] = []
    file = [make_job("file", tone(GOOD), index=i) for i in range(10)]
    clip = make_job("clip", tone(OTHER))
    for job in (*file, clip):
        job.reply.add_done_callback(lambda _, name=job.request_id: order.append(name))  # type: ignore[misc]
    engine.submit(file)
    assert model.stepping.wait(WAIT_S)
    engine.submit([clip])
    model.release()
    for job in (*file, clip):
        job.reply.result(WAIT_S)
    # Beside the file's first window, or, where its encode was long and the step short, after it:
    # then the file's turn of two windows is over first.
    assert order.index("clip") <= TURN_WINDOWS


def test_even_the_end_of_the_thread_leaves_nobody_waiting(start: Start) -> None:
    armed = threading.Event()

    def end(_: torch.Tensor) -> bool:
        if armed.is_set():
            raise SystemExit
        return False

    engine = start(FakeModel(fail_encode_when=end))
    armed.set()
    jobs = [make_job("r", tone(GOOD), index=i) for i in range(20)]
    engine.submit(jobs)
    for job in jobs:
        assert isinstance(job.reply.exception(WAIT_S), EngineError)
    assert engine.state == "failed"
    assert "SystemExit" in engine.reason
    with pytest.raises(NotReady):
        engine.submit([make_job("late")])


def test_a_bug_of_the_engine_itself_answers_everybody_and_goes_on(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(FakeModel())
    faults = iter([KeyError("bug")])

    def faulty(*arguments: object) -> object:
        for fault in faults:
            raise fault
        return next_batch(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("service.engine.intake.next_batch", faulty)
    job = make_job("unlucky", tone(GOOD))
    engine.submit([job])
    job.reply.exception(WAIT_S)
    await_ready(engine)
    again = make_job("again", tone(GOOD))
    engine.submit([again])
    assert text(again) == expected_text(again.window.samples)


class MiscountingModel(FakeModel):
    """Loses a window of every batch larger than one."""

    def encode(
        self,
        mel_BFT: torch.Tensor,
        profiles: Sequence[Profile],
        audio_frames: Sequence[int] | None = None,
    ) -> list[Encoded]:
        return super().encode(mel_BFT, profiles, audio_frames)[: max(1, len(profiles) - 1)]


def test_a_model_that_loses_windows_does_not_lose_replies(start: Start) -> None:
    engine = start(MiscountingModel(), batch_wait_ms=10_000)
    jobs = [make_job(f"r{i}", tone(GOOD)) for i in range(8)]
    engine.submit(jobs)
    assert {text(job) for job in jobs} == {expected_text(tone(GOOD))}


def test_silence_is_answered_too(start: Start) -> None:
    engine = start(FakeModel())
    job = make_job("r", SILENCE)
    engine.submit([job])
    assert text(job) == ""
