"""The one thread that owns the device: encode, join, step, answer, over and over.

A batch is encoded at once, or beside the steps (`lane`); then it joins when it is there, and until
then no other is begun.

A window whose values are no numbers fails alone, and where memory runs out what was in flight is
put back and fewer go on. Any other failure is traced to its window by halves. If a silent window
fails too, it is the device: everybody is answered, readiness goes, and the device is probed until
it works again or is given up.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from service.engine.budget import Budget
from service.engine.faults import (
    DeviceGoneError,
    DeviceLostError,
    Room,
    failed_window,
    give_back_memory,
    is_out_of_memory,
    report,
)
from service.engine.features import features_of
from service.engine.intake import Intake
from service.engine.lane import Encoding, Lane, Pending
from service.engine.probe import probe
from service.engine.replies import reject, resolve
from service.engine.schedule import Load
from service.engine.turns import Turns
from service.engine.words import WordThread
from service.errors import DeadlineExceeded, EngineError
from service.metrics import ModelMetrics
from service.model.protocol import DecodeBatch, SpeechModel, WindowsFailedError
from service.profiles import BUILT_IN
from service.types import Encoded, Hypothesis, Job, Kept, Timings, WindowResult

log = logging.getLogger(__name__)

# Of a lost device, a minute as the service has it; then whoever watches the process starts another.
MOST_PROBES = 12


@dataclass(slots=True)
class _Batch:
    """Windows that are being encoded, since when, and what of them has to be."""

    jobs: Sequence[Job]
    started: float
    pending: Pending | None  # None: an earlier attempt has encoded all of them


@dataclass(slots=True)
class _Slot:
    """A window in decode, and the device time it has had."""

    job: Job
    encoded: Encoded
    queue_s: float
    mel_s: float
    encode_s: float
    decode_s: float = 0.0
    kept: Kept | None = None


class Runner:
    """Serves an intake with a model. Everything but `stop` belongs to the thread of `run`."""

    def __init__(
        self,
        model: SpeechModel,
        intake: Intake,
        metrics: ModelMetrics,
        recovery_s: float,
        clock: Callable[[], float],
        most_windows: int,
        budget: Budget,
        turns: Turns,
        lane: Lane,
    ) -> None:
        self._model = model
        self._intake = intake
        self._metrics = metrics
        self._recovery_s = recovery_s
        self._clock = clock
        self._stopping = threading.Event()
        self._keys = itertools.count()
        self._lane = lane
        self._batch: _Batch | None = None
        self._decode: DecodeBatch | None = None
        self._slots: dict[int, _Slot] = {}
        # After a failed step: groups that one of the failed belongs to, to decode from the start.
        self._suspects: list[list[_Slot]] = []
        self._encode_s = self._decode_s = 0.0
        self._room = Room(most_windows)
        self._budget = budget
        self._turns = turns
        self._words = WordThread(model, clock, most_windows)
        self._num_threads = torch.get_num_threads()
        self._failed_probes: int | None = None  # since the device was lost; None: it is not

    def stop(self) -> None:
        """Ends `run` after the turn it is in; from any thread, once the intake has stopped."""
        self._stopping.set()

    def run(self) -> None:
        """Takes turns until stopped. No Exception ends it but DeviceGoneError."""
        with torch.inference_mode():
            while not self._stopping.is_set():
                if self._failed_probes is not None:
                    self._recover()
                    continue
                try:
                    self._turn()
                except Exception as error:
                    self._lose(error)
        self._words.stop()

    def _turn(self) -> None:
        self._leave()
        jobs = self._next_jobs()
        self._await_batch()
        with self._turns:
            self._retry_suspects()
            if jobs:
                self._batch = self._begin(jobs, self._clock())
            self._join(self._encoded())
            self._step()

    def _leave(self) -> None:
        """Drops the windows whose request was cancelled or has run out of time."""
        held = [slot.job for slot in itertools.chain(self._slots.values(), *self._suspects)]
        for job in (*held, *(self._batch.jobs if self._batch else ())):
            if job.deadline <= self._clock():
                reject(job, DeadlineExceeded("the deadline passed while decoding"))
        if self._batch is not None and all(job.reply.done() for job in self._batch.jobs):
            self._batch = None  # nobody waits for it: neither does what comes next
        gone = [key for key, slot in self._slots.items() if slot.job.reply.done()]
        if not gone or self._decode is None:
            return
        for key in gone:
            del self._slots[key]
        try:
            self._decode.drop(gone)
        except Exception as error:
            self._isolate(error)

    def _retry_suspects(self) -> None:
        while self._suspects and not self._slots:
            self._join(s for s in self._suspects.pop() if not s.job.reply.done())

    def _next_jobs(self) -> tuple[Job, ...]:
        """New windows, unless others are being encoded, or suspects wait: they would become
        suspects themselves."""
        self._metrics.decoding_windows.set(len(self._slots))
        if self._batch is not None or self._suspects:
            return ()
        slots = Counter(slot.job.request_id for slot in self._slots.values())
        held = sum(self._budget.cost(slot.job) for slot in self._slots.values())
        self._metrics.decode_memory("held").set(held)
        return self._intake.next_jobs(
            Load(slots, self._encode_s, self._decode_s, self._room.limit, held, self._budget)
        )

    def _begin(self, jobs: Sequence[Job], started: float) -> _Batch:
        """What an earlier attempt has encoded is not encoded again."""
        new = [job for job in jobs if job.encoded is None]
        if not new:
            return _Batch(jobs, started, None)
        samples = [job.window.samples for job in new]
        profiles = [job.profile for job in new]
        pending = self._lane.begin(
            lambda: features_of(samples, self._model.info),
            lambda made: self._model.encode(made.values_BFT, profiles, made.sounding),
        )
        self._decode_s = 0.0  # since an encode: one that goes on beside steps leaves them theirs
        return _Batch(jobs, started, pending)

    def _await_batch(self) -> None:
        """Where there is nothing to step meanwhile. Not in a turn: other engines have theirs."""
        idle = not self._slots and not self._suspects
        if idle and self._batch is not None and self._batch.pending is not None:
            self._batch.pending.wait()

    def _encoded(self) -> list[_Slot]:
        """The windows of the batch that somebody waits for, once they are there. They wait for
        suspects, or would become some themselves."""
        batch = self._batch
        if batch is None or self._suspects:
            return []
        if batch.pending is not None and not batch.pending.done():
            return []
        self._batch = None
        return [slot for slot in self._finish(batch) if not slot.job.reply.done()]

    def _finish(self, batch: _Batch) -> list[_Slot]:
        """The batch's windows to decode. One at fault is answered with an error, and is left out.

        Raises DeviceLostError if it is not the window's fault.
        """
        jobs, started = batch.jobs, batch.started
        try:
            return self._slots_of(batch)
        except Exception as error:
            report("encode", len(jobs), error)
            batch.pending = None  # it holds the error, and that its frames, of which this is one
            if is_out_of_memory(error) and len(jobs) + len(self._slots) > 1:
                self._put_back(jobs, error, limit=len(self._slots) or len(jobs) // 2)
                return []
            if len(jobs) == 1:
                self._blame(jobs[0], error)
                return []
        half = len(jobs) // 2
        return [
            slot
            for part in (jobs[:half], jobs[half:])
            for slot in self._finish(self._begin(part, started))
        ]

    def _slots_of(self, batch: _Batch) -> list[_Slot]:
        fresh = iter(self._new_slots(batch, batch.pending.result()) if batch.pending else [])
        return [
            next(fresh)
            if job.encoded is None
            else _Slot(job, job.encoded, batch.started - job.submitted, mel_s=0.0, encode_s=0.0)
            for job in batch.jobs
        ]

    def _new_slots(self, batch: _Batch, encoding: Encoding) -> list[_Slot]:
        jobs = [job for job in batch.jobs if job.encoded is None]
        self._encode_s = encoding.encode_s
        mel_each, encode_each = encoding.mel_s / len(jobs), encoding.encode_s / len(jobs)
        slots = [
            _Slot(job, window, batch.started - job.submitted, mel_each, encode_each)
            for job, window in zip(jobs, encoding.windows, strict=True)
        ]
        self._metrics.batch_windows.observe(len(jobs))
        for number, slot in enumerate(slots):
            self._count_frames(slot)
            if slot.job.explain:
                one = encoding.features.of(number)
                slot.kept = self._model.explain(one, slot.job.profile, slot.encoded)
        return slots

    def _await_device(self) -> None:
        """CUDA works behind our back: without this, steps would be billed for what joins."""
        if self._model.info.device.startswith("cuda"):
            torch.cuda.current_stream(self._model.info.device).synchronize()

    def _count_frames(self, slot: _Slot) -> None:
        kept = len(slot.encoded.positions_T)
        name = slot.job.profile.name
        self._metrics.frames(name, "kept").inc(kept)
        self._metrics.frames(name, "dropped").inc(slot.encoded.total_frames - kept)

    def _join(self, slots: Iterable[_Slot]) -> None:
        joining = {next(self._keys): slot for slot in slots}
        if not joining:
            return
        self._slots |= joining
        begin = time.perf_counter()
        try:
            if self._decode is None:
                self._decode = self._model.new_decode_batch()
            self._decode.join(
                list(joining),
                [slot.encoded for slot in joining.values()],
                [slot.job.options for slot in joining.values()],
            )
            self._await_device()
        except WindowsFailedError as error:
            self._fail_windows(error)
        except Exception as error:
            self._isolate(error, joining)
            return
        # The prompt, the language and the cross-attention's keys: the first part of decoding.
        join_s = time.perf_counter() - begin
        self._decode_s += join_s
        for slot in joining.values():
            slot.decode_s += join_s / len(joining)

    def _step(self) -> None:
        """One token for every window in decode; answers those that are done."""
        if not self._slots or self._decode is None:
            return
        begin = time.perf_counter()
        try:
            done = self._decode.step()
            finished = [(self._slots[key], hypothesis) for key, hypothesis in done.items()]
        except WindowsFailedError as error:
            self._fail_windows(error)
            return
        except Exception as error:
            self._isolate(error)
            return
        step_s = time.perf_counter() - begin
        self._decode_s += step_s
        for slot in self._slots.values():
            slot.decode_s += step_s / len(self._slots)
        for key in done:
            del self._slots[key]
        for slot, hypothesis in finished:
            self._answer(slot, hypothesis)

    def _answer(self, slot: _Slot, hypothesis: Hypothesis) -> None:
        self._room.answered()
        if not slot.job.options.word_times:
            self._resolve(slot, hypothesis)
            return
        # Beside a step, words on every thread would hold it up.
        num_threads = 1 if self._slots else self._num_threads
        then = partial(self._resolve, slot)
        self._words.find(slot.job, slot.encoded, hypothesis, num_threads, then)

    def _resolve(self, slot: _Slot, hypothesis: Hypothesis) -> None:
        """Also by the thread that finds words."""
        timings = Timings(
            queue=slot.queue_s,
            mel=slot.mel_s,
            encode=slot.encode_s,
            decode=slot.decode_s,
            total=self._clock() - slot.job.submitted,
        )
        resolve(slot.job, WindowResult(hypothesis, timings, kept=slot.kept, encoded=slot.encoded))

    def _fail_windows(self, error: WindowsFailedError) -> None:
        """Answers windows that failed alone. Where there are no others it may be the device."""
        report("decode", len(error.keys), error)
        failed = [self._slots.pop(key).job for key in error.keys]
        if not self._slots:
            self._probe()
        for job in failed:
            reject(job, failed_window(error))

    def _put_back(self, jobs: Sequence[Job], error: Exception, limit: int) -> None:
        """Jobs for which there was no memory wait again, ahead of everybody; fewer go at once."""
        self._room.shrink(limit)
        log.warning(
            "out of memory: %d windows wait again, %d are decoded at once from now on",
            *(len(jobs), self._room.limit),
        )
        self._intake.put_back(jobs)
        give_back_memory()

    def _isolate(self, error: Exception, joining: Collection[int] | None = None) -> None:
        """After a failure in decode: its windows are decoded again by halves, until it is one.

        `joining`: the keys of those that failed to join: the others are as they were. Where it is
        memory, they wait again instead. Raises DeviceLostError if it is not that one's fault.
        """
        keys = list(self._slots if joining is None else joining)
        slots = [self._slots.pop(key) for key in keys]
        report("decode", len(slots), error)
        if not self._slots:
            self._decode = None
        being_encoded = len(self._batch.jobs) if self._batch else 0
        if is_out_of_memory(error) and len(slots) + len(self._slots) + being_encoded > 1:
            jobs = [slot.job for slot in slots]
            self._put_back(jobs, error, limit=len(self._slots) or len(slots) // 2)
        elif len(slots) == 1:
            self._blame(slots[0].job, error)
        elif slots:
            half = len(slots) // 2
            self._suspects += [slots[half:], slots[:half]]

    def _blame(self, job: Job, error: Exception) -> None:
        """Answers the job with an error, if the device does well without it."""
        self._probe()
        if is_out_of_memory(error):
            self._room.restore()
        reject(job, failed_window(error))

    def _probe(self) -> None:
        try:
            probe(self._model, BUILT_IN["dense"])
        except Exception as error:
            raise DeviceLostError(f"{type(error).__name__}: {error}") from None

    def _lose(self, error: Exception) -> None:
        """Not ready until the device answers a probe; everybody who waits gets an error."""
        if isinstance(error, DeviceLostError):
            reason = f"the device failed: {error}"
        else:
            report("the engine", len(self._slots), error)
            reason = f"the engine failed ({type(error).__name__})"
        log.error("not ready, %s", reason)
        self._failed_probes = 0
        self._slots, self._suspects, self._decode, self._batch = {}, [], None, None
        self._metrics.decoding_windows.set(0)
        self._intake.fail(reason, _engine_failed)

    def _recover(self) -> None:
        if self._stopping.wait(self._recovery_s):
            return
        try:
            self._probe()
        except DeviceLostError as error:
            self._count_failed_probe(f"the device failed: {error}")
            return
        log.warning("the device works again")
        self._failed_probes = None
        self._intake.open()

    def _count_failed_probe(self, reason: str) -> None:
        """Raises DeviceGoneError for the last one that is tried."""
        self._failed_probes = (self._failed_probes or 0) + 1
        self._intake.fail(reason, _engine_failed)
        if self._failed_probes >= MOST_PROBES:
            raise DeviceGoneError(f"{reason}, {MOST_PROBES} times in a row")


def _engine_failed() -> EngineError:
    return EngineError("the model or its device failed")
