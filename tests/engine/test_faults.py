"""A window that fails alone, memory that runs out, a device that is gone: who is answered what."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence

import pytest
import torch

from service.config import ServerConfig
from service.engine import recovery as recovering
from service.engine.engine import Engine
from service.engine.faults import GROW_AFTER, Room, is_out_of_memory
from service.engine.intake import Intake
from service.engine.recovery import Recovery
from service.errors import EngineError
from service.families.fake import FakeDecodeBatch, FakeModel
from service.metrics import Metrics
from service.model.protocol import WindowsFailedError
from service.profiles import Profile
from service.types import DecodeOptions, Encoded, Hypothesis

from .conftest import Start
from .jobs import WAIT_S, expected_text, loud_at, make_job, make_jobs, text, tone

GOOD, BAD = 300.0, 2500.0
NO_MEMORY = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    "python": MemoryError(),
}


class RowBatch(FakeDecodeBatch):
    """Names windows of NaN states instead of failing as a whole; counts how often any joined."""

    joined: list[int]

    def join(
        self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
    ) -> None:
        super().join(keys, encoded, options)
        self.joined += keys

    def step(self) -> dict[int, Hypothesis]:
        failed = [k for k, w in self._windows.items() if bool(w.encoded.states_TD.isnan().any())]
        self.drop(failed)
        if failed:
            raise WindowsFailedError(failed)
        return super().step()


class RowModel(FakeModel):
    """A fake of which a row may fail."""

    def __init__(self, *bad: float) -> None:
        super().__init__(fail_step_when=lambda mel: any(loud_at(hertz)(mel) for hertz in bad))
        self.joined: list[int] = []

    def new_decode_batch(self) -> FakeDecodeBatch:
        batch = RowBatch()
        batch.joined = self.joined
        return batch


def test_a_row_that_fails_does_so_alone_and_nobody_starts_again(start: Start) -> None:
    model = RowModel(BAD)
    engine = start(model, batch_wait_ms=10_000, max_batch_windows=32)
    jobs = [make_job(f"r{i}", tone(BAD if i == 20 else GOOD)) for i in range(32)]
    before = len(model.joined)
    engine.submit(jobs)
    with pytest.raises(EngineError, match="the model failed on this window"):
        jobs[20].reply.result(WAIT_S)
    for job in jobs[:20] + jobs[21:]:
        assert text(job) == expected_text(job.window.samples)
    assert len(model.joined) - before == len(jobs)
    assert engine.state == "ready"


class SmallModel(FakeModel):
    """Holds at most so many windows; raises `error` for one more, where it is asked to."""

    def __init__(self, error: Exception, where: str, most: int) -> None:
        super().__init__()
        self.error, self.where, self.most = error, where, most
        self.held: set[int] = set()
        self.largest = 0

    def encode(
        self,
        mel_BFT: torch.Tensor,
        profiles: Sequence[Profile],
        audio_frames: Sequence[int] | None = None,
    ) -> list[Encoded]:
        if self.where == "encode" and len(self.held) + len(profiles) > self.most:
            raise self.error
        return super().encode(mel_BFT, profiles, audio_frames)

    def new_decode_batch(self) -> FakeDecodeBatch:
        self.held.clear()  # of a batch that was lost nothing is left
        return SmallBatch(self)


class SmallBatch(FakeDecodeBatch):
    def __init__(self, model: SmallModel) -> None:
        super().__init__()
        self.model = model

    def join(
        self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
    ) -> None:
        if self.model.where == "join" and len(self.model.held) + len(keys) > self.model.most:
            raise self.model.error
        super().join(keys, encoded, options)
        self.model.held |= set(keys)

    def step(self) -> dict[int, Hypothesis]:
        if self.model.where == "step" and len(self.model.held) > self.model.most:
            raise self.model.error
        self.model.largest = max(self.model.largest, len(self.model.held))
        done = super().step()
        self.model.held -= set(done)
        return done

    def drop(self, keys: Collection[int]) -> None:
        super().drop(keys)
        self.model.held -= set(keys)


@pytest.mark.parametrize("where", ["encode", "join", "step"])
@pytest.mark.parametrize("kind", NO_MEMORY)
def test_where_memory_runs_out_everybody_is_served_fewer_at_a_time(
    start: Start, where: str, kind: str
) -> None:
    model = SmallModel(NO_MEMORY[kind], where, most=5)
    engine = start(model, batch_wait_ms=50, max_decode_windows=32)
    jobs = [make_job(f"r{i}", tone(GOOD, 2 + i % 3)) for i in range(32)]
    for job in jobs:
        engine.submit([job])
    for job in jobs:
        assert text(job) == expected_text(job.window.samples)
    assert 1 < model.largest <= 5
    assert engine.state == "ready"


def test_a_window_too_large_for_all_memory_fails_alone_and_says_so(start: Start) -> None:
    def fail(mel_FT: torch.Tensor) -> bool:
        if loud_at(BAD)(mel_FT):
            raise NO_MEMORY["cuda"]
        return False

    engine = start(FakeModel(fail_encode_when=fail), batch_wait_ms=50)
    jobs = [make_job(f"r{i}", tone(BAD if i == 3 else GOOD)) for i in range(8)]
    engine.submit(jobs)
    with pytest.raises(EngineError, match="not enough memory for this window"):
        jobs[3].reply.result(WAIT_S)
    for job in jobs[:3] + jobs[4:]:
        assert text(job) == expected_text(job.window.samples)
    assert engine.state == "ready"


def test_room_shrinks_at_once_and_grows_slowly() -> None:
    room = Room(8)
    room.shrink(3)
    assert room.limit == 3
    room.shrink(5)
    assert room.limit == 3
    room.shrink(0)
    assert room.limit == 1
    for _ in range(GROW_AFTER - 1):
        room.answered()
    assert room.limit == 1
    room.answered()
    assert room.limit == 2
    for _ in range(100 * GROW_AFTER):
        room.answered()
    assert room.limit == 8
    room.shrink(2)
    room.restore()
    assert room.limit == 8


def test_after_a_window_that_was_too_large_as_many_go_as_before() -> None:
    intake = Intake(ServerConfig(), Metrics().of("fake"), time.monotonic)
    recovery = Recovery(FakeModel(), intake, most_windows=8)
    waiting, large = make_jobs("waiting", 3), make_job("large")
    recovery.put_back(waiting, limit=2)
    assert recovery.room.limit == 2
    recovery.blame(make_job("bad"), ValueError())
    assert recovery.room.limit == 2
    recovery.blame(large, NO_MEMORY["cuda"])
    assert recovery.room.limit == 8
    with pytest.raises(EngineError, match="not enough memory for this window"):
        large.reply.result(0)
    assert not any(job.reply.done() for job in waiting)


def test_what_is_no_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_a_device_that_stays_lost_is_given_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovering, "MOST_PROBES", 3)
    lost = threading.Event()
    engine = start(FakeModel(fail_encode_when=lambda _: lost.is_set()))
    lost.set()
    jobs = [make_job(f"r{i}", tone(GOOD)) for i in range(20)]
    engine.submit(jobs)
    for job in jobs:
        assert isinstance(job.reply.exception(WAIT_S), EngineError)
    await_end(engine)
    assert "3 times in a row" in engine.reason
    with pytest.raises(EngineError, match="3 times in a row"):
        engine.wait_ready(0)


def await_end(engine: Engine) -> None:
    end = time.monotonic() + WAIT_S
    while not engine.failed_for_good and time.monotonic() < end:
        time.sleep(0.001)
    assert engine.failed_for_good
    assert engine.state == "failed"
