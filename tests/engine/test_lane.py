"""A batch that is encoded beside the steps: who waits for it, and who does not."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service.config import ServerConfig
from service.engine import schedule
from service.engine.engine import Engine
from service.engine.features import Features, features_of
from service.engine.lane import AtOnce, Beside, Encode, Encoding, Lane, Make, Pending, lane_for
from service.engine.probe import tried
from service.engine.queue import FairQueue
from service.engine.schedule import Load, Wait, next_batch
from service.engine.turns import Turns
from service.errors import DeadlineExceeded, EngineError, NotReady
from service.families.fake import FakeDecodeBatch, FakeModel, Predicate
from service.families.whisper import Whisper
from service.model.checkpoint import load_checkpoint
from service.profiles import BUILT_IN, Profile
from service.types import Batch, DecodeOptions, Encoded, Hypothesis, Job

from .conftest import Start
from .jobs import WAIT_S, HeldModel, expected_text, loud_at, make_job, text, tone, until

GOOD, BAD, OTHER = 300.0, 2500.0, 900.0


class SlowLane:
    """Encodes at once, but says so, while it is held, of nothing that was begun."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.begun = 0
        self.waiting = threading.Event()  # for a result before it is there
        self.fault: Exception | None = None  # of the next result
        self.watch: Callable[[], None] = lambda: None  # called when something begins

    def begin(self, make: Make, encode: Encode) -> Pending:
        self.watch()
        self.begun += 1
        return _Slow(self, AtOnce().begin(make, encode))


class _Slow:
    def __init__(self, lane: SlowLane, pending: Pending) -> None:
        self._lane, self._pending = lane, pending

    def done(self) -> bool:
        return self._lane.free.is_set()

    def wait(self) -> None:
        if not self.done():
            self._lane.waiting.set()
            assert self._lane.free.wait(WAIT_S)

    def result(self) -> Encoding:
        self.wait()
        fault, self._lane.fault = self._lane.fault, None
        if fault is not None:
            raise fault
        return self._pending.result()


class WrongLane:
    """Gives the states of somebody else's memory."""

    def begin(self, make: Make, encode: Encode) -> Pending:
        def wrong(made: Features) -> list[Encoded]:
            return [replace(one, states_TD=one.states_TD + 1) for one in encode(made)]

        return AtOnce().begin(make, wrong)


@pytest.fixture(autouse=True)
def newcomers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long an encode took, and how short the step after it was."""
    monkeypatch.setattr(schedule, "DECODE_PER_NEWCOMERS", 0.0)


def is_right(*jobs: Job) -> None:
    for job in jobs:
        job.reply.result(WAIT_S)
        assert text(job) == expected_text(job.window.samples)


def beside(
    start: Start, lane: SlowLane, *late: Job, step_seconds: float = 0.0
) -> tuple[Engine, Job]:
    """An engine in whose decode is one long window, while the late ones are being encoded."""
    model = HeldModel(step_seconds=step_seconds)
    engine = start(model, lane=lane, max_batch_windows=8, batch_wait_ms=0)
    model.hold()
    first = make_job("first", tone(OTHER, 25.0))
    engine.submit([first])
    assert model.stepping.wait(WAIT_S)
    lane.free.clear()
    begun_beside: list[bool] = []
    lane.watch = lambda: begun_beside.append(not first.reply.done())
    engine.submit(list(late))
    model.release()
    until(lambda: lane.begun == 2)
    assert begun_beside == [True]
    return engine, first


def test_steps_go_on_while_others_are_encoded(start: Start) -> None:
    lane, late = SlowLane(), make_job("late", tone(GOOD))
    _, first = beside(start, lane, late)
    is_right(first)
    assert not late.reply.done()
    lane.free.set()
    is_right(late)


def test_nothing_else_is_begun_meanwhile(start: Start) -> None:
    lane, late = SlowLane(), make_job("late", tone(GOOD))
    engine, first = beside(start, lane, late)
    later = make_job("later", tone(BAD))
    engine.submit([later])
    is_right(first)
    assert lane.waiting.wait(WAIT_S)  # there is nothing to step
    assert lane.begun == 2
    lane.free.set()
    is_right(late, later)
    assert lane.begun == 3


def test_a_window_that_cannot_be_encoded_fails_alone(start: Start) -> None:
    lane = SlowLane()
    late = [make_job(f"r{i}", tone(BAD if i == 2 else GOOD)) for i in range(4)]
    failing = FakeModel(fail_encode_when=loud_at(BAD))
    engine = start(failing, lane=lane, max_batch_windows=8, batch_wait_ms=50)
    engine.submit(late)
    with pytest.raises(EngineError, match="the model failed on this window"):
        late[2].reply.result(WAIT_S)
    is_right(*late[:2], late[3])
    assert engine.state == "ready"


def test_memory_that_runs_out_beside_steps_costs_nobody_an_answer(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    lane = SlowLane()
    late = [make_job(f"r{i}", tone(GOOD)) for i in range(4)]
    engine, first = beside(start, lane, *late)
    lane.fault = torch.OutOfMemoryError("injected")
    lane.free.set()
    is_right(first, *late)
    assert engine.state == "ready"
    assert "out of memory: 4 windows wait again" in caplog.text


def test_a_client_that_leaves_meanwhile_gets_nothing_and_holds_up_nobody(start: Start) -> None:
    lane = SlowLane()
    gone, stays = make_job("gone", tone(GOOD)), make_job("stays", tone(BAD))
    engine, first = beside(start, lane, gone, stays)
    engine.withdraw([gone])
    lane.free.set()
    is_right(first, stays)
    assert gone.reply.cancelled()
    until(lambda: engine.num_outstanding == 0)


def test_an_engine_that_stops_does_not_wait_for_it(start: Start) -> None:
    lane, late = SlowLane(), make_job("late", tone(GOOD))
    engine, first = beside(start, lane, late, step_seconds=0.02)
    engine.stop()
    assert not lane.waiting.is_set()
    for job in (first, late):
        assert isinstance(job.reply.exception(WAIT_S), NotReady)


def test_a_device_that_is_lost_takes_it_along(start: Start) -> None:
    lost = threading.Event()
    lane, late = SlowLane(), make_job("late", tone(GOOD))
    engine, _ = beside(start, lane, late)
    lane.fault = RuntimeError("device lost")
    model = engine.model
    assert isinstance(model, HeldModel)
    model._fail_encode_when = lambda _: lost.is_set()
    lost.set()
    lane.free.set()
    assert isinstance(late.reply.exception(WAIT_S), EngineError)
    until(lambda: engine.state == "failed")
    lost.clear()
    until(lambda: engine.state == "ready")
    after = make_job("after", tone(GOOD))
    engine.submit([after])
    is_right(after)


def test_what_is_encoded_beside_a_step_that_loses_the_device_is_forgotten(start: Start) -> None:
    lost = threading.Event()
    lane, model = SlowLane(), FlakyModel(fail_encode_when=lambda _: lost.is_set())
    engine = start(model, lane=lane, max_batch_windows=8, batch_wait_ms=0)
    model.sizes.clear()
    first, late, after = (make_job(name, tone(GOOD, 25.0)) for name in ("first", "late", "after"))
    engine.submit([first])
    until(lambda: model.sizes == [1])
    lane.free.clear()
    engine.submit([late])
    until(lambda: lane.begun == 2)
    lost.set()
    model.failing.set()
    for job in (first, late):
        assert isinstance(job.reply.exception(WAIT_S), EngineError)
    lost.clear()
    until(lambda: engine.state == "ready")
    engine.submit([after])
    until(lambda: lane.begun == 3)  # nobody waits for the late one
    lane.free.set()
    is_right(after)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Load]:
    """All that the schedule is told."""
    told: list[Load] = []

    def watched(queue: FairQueue, load: Load, now: float, config: ServerConfig) -> Batch | Wait:
        told.append(load)
        return next_batch(queue, load, now, config)

    monkeypatch.setattr("service.engine.intake.next_batch", watched)
    return told


def test_steps_beside_an_encode_are_decoding_that_had_its_time(
    start: Start, loads: list[Load]
) -> None:
    lane, late = SlowLane(), make_job("late", tone(GOOD))
    _, first = beside(start, lane, late, step_seconds=0.01)
    is_right(first)  # two dozen steps
    lane.free.set()
    is_right(late)
    after = next(load for load in loads if "late" in load.slots)
    assert after.decode_s > 0.1  # and not only what came after it


def test_decoding_is_counted_since_the_last_encode(start: Start, loads: list[Load]) -> None:
    engine = start(FakeModel(step_seconds=0.05))
    first, late = make_job("first", tone(OTHER, 25.0)), make_job("late", tone(GOOD))
    engine.submit([first])
    until(lambda: bool(loads) and loads[-1].decode_s > 0.3)
    engine.submit([late])
    is_right(first, late)
    joined = next(number for number, load in enumerate(loads) if "late" in load.slots)
    assert loads[joined].decode_s < loads[joined - 1].decode_s


def test_a_deadline_that_passes_meanwhile_is_told_at_once(start: Start) -> None:
    lane = SlowLane()
    late = make_job("late", tone(GOOD), deadline=time.monotonic() + 2.0)
    _, first = beside(start, lane, late, step_seconds=0.15)
    with pytest.raises(DeadlineExceeded):
        late.reply.result(WAIT_S)
    assert not lane.free.is_set()
    is_right(first)
    assert not lane.waiting.is_set()  # nobody waits for it


def test_memory_that_runs_out_at_a_step_beside_it_is_not_blamed_on_one_window(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    lane, model = SlowLane(), FlakyModel()
    engine = start(model, lane=lane, max_batch_windows=8, batch_wait_ms=0)
    model.sizes.clear()
    first, late = make_job("first", tone(OTHER, 25.0)), make_job("late", tone(GOOD))
    engine.submit([first])
    until(lambda: model.sizes == [1])
    lane.free.clear()
    engine.submit([late])
    until(lambda: lane.begun == 2)
    model.fault = torch.OutOfMemoryError("injected")
    model.failing.set()
    until(lambda: not model.failing.is_set())
    lane.free.set()
    is_right(first, late)
    assert "out of memory: 1 windows wait again" in caplog.text


def test_an_idle_engine_leaves_others_their_turns_while_it_encodes(start: Start) -> None:
    lane, turns = SlowLane(), Turns()
    engine = start(FakeModel(), lane=lane, turns=turns, batch_wait_ms=0)
    lane.free.clear()
    job = make_job("only", tone(GOOD))
    engine.submit([job])
    assert lane.waiting.wait(WAIT_S)
    with turns:  # the other engine's
        assert not job.reply.done()
    lane.free.set()
    is_right(job)


class Seen(FakeModel):
    """Remembers, weakly, what it was given to encode; one sound fails."""

    def __init__(self) -> None:
        super().__init__(fail_encode_when=loud_at(BAD))
        self.given: list[weakref.ref[torch.Tensor]] = []
        self.alive: list[int] = []

    def encode(
        self,
        mel_BFT: torch.Tensor,
        profiles: Sequence[Profile],
        audio_frames: Sequence[int] | None = None,
    ) -> list[Encoded]:
        self.alive.append(sum(one() is not None for one in self.given))
        self.given.append(weakref.ref(mel_BFT))
        return super().encode(mel_BFT, profiles, audio_frames)


def test_what_failed_is_not_held_while_its_halves_are_tried(start: Start) -> None:
    model = Seen()
    engine = start(model, max_batch_windows=8, batch_wait_ms=100)
    jobs = [make_job(f"r{i}", tone(BAD if i == 5 else GOOD)) for i in range(8)]
    gc.collect()
    gc.disable()
    try:
        engine.submit(jobs)
        with pytest.raises(EngineError):
            jobs[5].reply.result(WAIT_S)
        is_right(*jobs[:5], *jobs[6:])
    finally:
        gc.enable()
    # The window that showed that the model works, eight, their halves, ...
    assert len(model.alive) > 5
    assert max(model.alive) == 0


class FlakyModel(FakeModel):
    """A step of it fails as a whole where that is asked for; `sizes`: of the batch after joins."""

    def __init__(self, fail_encode_when: Predicate | None = None) -> None:
        super().__init__(fail_encode_when=fail_encode_when)
        self.failing = threading.Event()
        self.fault: Exception = RuntimeError("injected")
        self.sizes: list[int] = []

    def new_decode_batch(self) -> FakeDecodeBatch:
        return FlakyBatch(self)


class FlakyBatch(FakeDecodeBatch):
    def __init__(self, model: FlakyModel) -> None:
        super().__init__(0.005)
        self.model = model

    def join(
        self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
    ) -> None:
        super().join(keys, encoded, options)
        self.model.sizes.append(len(self))

    def step(self) -> dict[int, Hypothesis]:
        if self.model.failing.is_set():
            self.model.failing.clear()
            raise self.model.fault
        return super().step()


def test_it_does_not_join_windows_that_are_tried_again(start: Start) -> None:
    """One that fails once more would take it along."""
    lane, model = SlowLane(), FlakyModel()
    engine = start(model, lane=lane, max_batch_windows=8, batch_wait_ms=50)
    model.sizes.clear()
    both = [make_job(name, tone(OTHER, 25.0)) for name in "ab"]
    engine.submit(both)
    until(lambda: model.sizes == [2])
    lane.free.clear()
    late = make_job("late", tone(GOOD))
    engine.submit([late])
    until(lambda: lane.begun == 2)
    model.failing.set()
    until(lambda: model.sizes == [2, 1])
    lane.free.set()
    is_right(*both, late)
    assert model.sizes == [2, 1, 1, 2]  # with the last one: there is nobody else to try


def test_what_encodes_beside_steps_is_for_a_gpu_alone() -> None:
    assert isinstance(lane_for("cpu"), AtOnce)


GPU_PROFILES = (
    BUILT_IN["dense"],
    BUILT_IN["balanced"],
    Profile("pairs", layer=2, sparsity=0.5, pool="mean", late=0.25),
    BUILT_IN["eas-published"],
)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
class TestOnCuda:
    @pytest.fixture(scope="class")
    def model(self, mini_folder: Path) -> Whisper:
        return Whisper(load_checkpoint(str(mini_folder), device="cuda"))

    def test_it_gives_what_encoding_at_once_gives(self, model: Whisper) -> None:
        """Over and over, while this stream takes and gives back memory of the same sizes."""
        windows = [tone(200.0 + 300 * i, 5.0 + 5 * i) for i in range(4)]

        def encode(made: Features) -> list[Encoded]:
            return model.encode(made.values_BFT, GPU_PROFILES, made.sounding)

        right = AtOnce().begin(lambda: features_of(windows, model.info), encode).result()
        lane = Beside(torch.device("cuda"))
        for _ in range(20):
            pending = lane.begin(lambda: features_of(windows, model.info), encode)
            for size in (1 << 16, 1 << 18, 1 << 20):
                torch.full((size,), torch.nan, device="cuda").sum()
            found = pending.result()
            for ours, theirs in zip(found.windows, right.windows, strict=True):
                assert torch.equal(ours.positions_T, theirs.positions_T)
                torch.testing.assert_close(ours.states_TD, theirs.states_TD, rtol=0, atol=0.01)
            assert found.encode_s > 0


def test_a_lane_that_works_is_taken() -> None:
    lane = SlowLane()
    assert tried(lane, FakeModel()) is lane
    assert lane.begun == 1
    at_once = AtOnce()
    assert tried(at_once, HeldModel()) is at_once  # there is nothing to try


@pytest.mark.parametrize("fails", [True, False])
def test_a_lane_that_does_not_is_not(caplog: pytest.LogCaptureFixture, fails: bool) -> None:
    failing = SlowLane()
    failing.fault = RuntimeError("no such stream")
    lane: Lane = failing if fails else WrongLane()
    assert isinstance(tried(lane, FakeModel()), AtOnce)
    assert ("no such stream" if fails else "its states are others") in caplog.text
