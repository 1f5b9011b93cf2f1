"""The one thread that owns the device: encode, join, step, answer, over and over.

A batch is encoded at once, or beside the steps (`encoding`); then it joins when it is there, and
until then no other is begun.

A window whose values are no numbers fails alone, and where memory runs out what was in flight is
put back and fewer go on. Any other failure is traced to its window by halves, or to the device
(`recovery`).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import partial

import torch

from service.engine.budget import Budget
from service.engine.encoding import Encoder, Slot
from service.engine.faults import failed_window, is_out_of_memory, report
from service.engine.intake import Intake
from service.engine.lane import Lane
from service.engine.recovery import Recovery
from service.engine.replies import reject, resolve
from service.engine.schedule import Load
from service.engine.turns import Turns
from service.engine.words import WordThread
from service.errors import DeadlineExceeded
from service.metrics import ModelMetrics
from service.model.protocol import DecodeBatch, SpeechModel, WindowsFailedError
from service.types import Hypothesis, Job


class Loop:
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
        self._recovery = Recovery(model, intake, most_windows)
        self._encoder = Encoder(model, lane, self._recovery, metrics, clock)
        self._decode: DecodeBatch | None = None
        self._slots: dict[int, Slot] = {}
        # After a failed step: groups that one of the failed belongs to, to decode from the start.
        self._suspects: list[list[Slot]] = []
        self._decode_s = 0.0  # in decode since the last encode began
        self._budget = budget
        self._turns = turns
        self._words = WordThread(model, clock, most_windows)
        self._num_threads = torch.get_num_threads()

    def stop(self) -> None:
        """Ends `run` after the turn it is in; from any thread, once the intake has stopped."""
        self._stopping.set()

    def run(self) -> None:
        """Takes turns until stopped. No Exception ends it but DeviceGoneError."""
        with torch.inference_mode():
            while not self._stopping.is_set():
                if self._recovery.is_lost:
                    if not self._stopping.wait(self._recovery_s):
                        self._recovery.try_again()
                    continue
                try:
                    self._turn()
                except Exception as error:
                    self._lose(error)
        self._words.stop()

    def _turn(self) -> None:
        self._leave()
        jobs = self._next_jobs()
        if not self._slots and not self._suspects:
            self._encoder.wait()  # not in a turn: other engines have theirs meanwhile
        with self._turns:
            self._retry_suspects()
            self._encode(jobs)
            self._join(self._encoded())
            self._step()

    def _leave(self) -> None:
        """Drops the windows whose request was cancelled or has run out of time."""
        held = [slot.job for slot in itertools.chain(self._slots.values(), *self._suspects)]
        for job in (*held, *self._encoder.jobs):
            if job.deadline <= self._clock():
                reject(job, DeadlineExceeded("the deadline passed while decoding"))
        if all(job.reply.done() for job in self._encoder.jobs):
            self._encoder.abandon()  # nobody waits for it: neither does what comes next
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
        if self._encoder.jobs or self._suspects:
            return ()
        slots = Counter(slot.job.request_id for slot in self._slots.values())
        held = sum(self._budget.cost(slot.job) for slot in self._slots.values())
        self._metrics.decode_memory("held").set(held)
        limit = self._recovery.room.limit
        return self._intake.next_jobs(
            Load(slots, self._encoder.took_s, self._decode_s, limit, held, self._budget)
        )

    def _encode(self, jobs: tuple[Job, ...]) -> None:
        if not jobs:
            return
        self._encoder.begin(jobs)
        if any(job.encoded is None for job in jobs):
            self._decode_s = 0.0  # one that goes on beside steps leaves them theirs

    def _encoded(self) -> list[Slot]:
        """The windows of the batch that somebody waits for, once they are there. They wait for
        suspects, or would become some themselves."""
        if self._suspects:
            return []
        slots = self._encoder.take(len(self._slots))
        return [slot for slot in slots if not slot.job.reply.done()]

    def _join(self, slots: Iterable[Slot]) -> None:
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

    def _answer(self, slot: Slot, hypothesis: Hypothesis) -> None:
        self._recovery.room.answered()
        if not slot.job.options.word_times:
            self._resolve(slot, hypothesis)
            return
        # Beside a step, words on every thread would hold it up.
        num_threads = 1 if self._slots else self._num_threads
        then = partial(self._resolve, slot)
        self._words.find(slot.job, slot.encoded, hypothesis, num_threads, then)

    def _resolve(self, slot: Slot, hypothesis: Hypothesis) -> None:
        """Also by the thread that finds words."""
        resolve(slot.job, slot.result(hypothesis, self._clock()))

    def _fail_windows(self, error: WindowsFailedError) -> None:
        """Answers windows that failed alone. Where there are no others it may be the device."""
        report("decode", len(error.keys), error)
        failed = [self._slots.pop(key).job for key in error.keys]
        if not self._slots:
            self._recovery.probe()
        for job in failed:
            reject(job, failed_window(error))

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
        num_others = len(self._slots) + len(self._encoder.jobs)
        if is_out_of_memory(error) and len(slots) + num_others > 1:
            jobs = [slot.job for slot in slots]
            self._recovery.put_back(jobs, limit=len(self._slots) or len(slots) // 2)
        elif len(slots) == 1:
            self._recovery.blame(slots[0].job, error)
        elif slots:
            half = len(slots) // 2
            self._suspects += [slots[half:], slots[:half]]

    def _lose(self, error: Exception) -> None:
        """Nothing is in flight any more, and whoever waits is answered."""
        num_decoding = len(self._slots)
        self._slots, self._suspects, self._decode = {}, [], None
        self._encoder.abandon()
        self._metrics.decoding_windows.set(0)
        self._recovery.lose(error, num_decoding)

    def _await_device(self) -> None:
        """CUDA works behind our back: without this, steps would be billed for what joins."""
        if self._model.info.device.startswith("cuda"):
            torch.cuda.current_stream(self._model.info.device).synchronize()
