"""Windows to be decoded: a batch at a time, at once or beside the decode steps (`lane`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.engine.faults import is_out_of_memory, report
from service.engine.features import features_of
from service.engine.lane import Encoding, Lane, Pending
from service.engine.recovery import Recovery
from service.metrics import ModelMetrics
from service.model.protocol import SpeechModel
from service.types import Encoded, Hypothesis, Job, Kept, Timings, WindowResult


@dataclass(slots=True)
class Slot:
    """A window that is encoded, and the device time that it has had."""

    job: Job
    encoded: Encoded
    queue_s: float
    mel_s: float = 0.0
    encode_s: float = 0.0
    decode_s: float = 0.0
    kept: Kept | None = None

    def result(self, hypothesis: Hypothesis, now: float) -> WindowResult:
        timings = Timings(
            queue=self.queue_s,
            mel=self.mel_s,
            encode=self.encode_s,
            decode=self.decode_s,
            total=now - self.job.submitted,
        )
        return WindowResult(hypothesis, timings, kept=self.kept, encoded=self.encoded)


@dataclass(slots=True)
class _Batch:
    """Windows that are being encoded, since when, and what of them has to be."""

    jobs: Sequence[Job]
    started: float
    pending: Pending | None  # None: an earlier attempt has encoded all of them


class Encoder:
    """One batch at a time. A window at fault is found by halves, and answered with an error."""

    def __init__(
        self,
        model: SpeechModel,
        lane: Lane,
        recovery: Recovery,
        metrics: ModelMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._model, self._lane, self._recovery = model, lane, recovery
        self._metrics, self._clock = metrics, clock
        self._batch: _Batch | None = None
        self.took_s = 0.0  # the last batch

    @property
    def jobs(self) -> Sequence[Job]:
        """Those that are being encoded."""
        return self._batch.jobs if self._batch else ()

    def begin(self, jobs: Sequence[Job]) -> None:
        """Once there is no other batch."""
        self._batch = self._begun(jobs, self._clock())

    def wait(self) -> None:
        """Until the batch is there."""
        if self._batch is not None and self._batch.pending is not None:
            self._batch.pending.wait()

    def abandon(self) -> None:
        """Forgets the batch."""
        self._batch = None

    def take(self, num_decoding: int) -> list[Slot]:
        """The windows of the batch, once it is there. Where its memory ran out beside others in
        decode, `num_decoding`, it waits again.

        Raises DeviceLostError for a failure that is no window's fault.
        """
        batch = self._batch
        if batch is None or not (batch.pending is None or batch.pending.done()):
            return []
        self._batch = None
        return self._finish(batch, num_decoding)

    def _begun(self, jobs: Sequence[Job], started: float) -> _Batch:
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
        return _Batch(jobs, started, pending)

    def _finish(self, batch: _Batch, num_decoding: int) -> list[Slot]:
        jobs, started = batch.jobs, batch.started
        try:
            return self._slots_of(batch)
        except Exception as error:
            report("encode", len(jobs), error)
            batch.pending = None  # it holds the error, and that its frames, of which this is one
            if is_out_of_memory(error) and len(jobs) + num_decoding > 1:
                self._recovery.put_back(jobs, limit=num_decoding or len(jobs) // 2)
                return []
            if len(jobs) == 1:
                self._recovery.blame(jobs[0], error)
                return []
        half = len(jobs) // 2
        return [
            slot
            for part in (jobs[:half], jobs[half:])
            for slot in self._finish(self._begun(part, started), num_decoding)
        ]

    def _slots_of(self, batch: _Batch) -> list[Slot]:
        fresh = iter(self._new_slots(batch, batch.pending.result()) if batch.pending else [])
        return [
            next(fresh)
            if job.encoded is None
            else Slot(job, job.encoded, batch.started - job.submitted)
            for job in batch.jobs
        ]

    def _new_slots(self, batch: _Batch, encoding: Encoding) -> list[Slot]:
        jobs = [job for job in batch.jobs if job.encoded is None]
        self.took_s = encoding.encode_s
        mel_each, encode_each = encoding.mel_s / len(jobs), encoding.encode_s / len(jobs)
        slots = [
            Slot(job, window, batch.started - job.submitted, mel_each, encode_each)
            for job, window in zip(jobs, encoding.windows, strict=True)
        ]
        self._metrics.batch_windows.observe(len(jobs))
        for number, slot in enumerate(slots):
            self._count_frames(slot)
            if slot.job.explain:
                one = encoding.features.of(number)
                slot.kept = self._model.explain(one, slot.job.profile, slot.encoded)
        return slots

    def _count_frames(self, slot: Slot) -> None:
        kept = len(slot.encoded.positions_T)
        name = slot.job.profile.name
        self._metrics.frames(name, "kept").inc(kept)
        self._metrics.frames(name, "dropped").inc(slot.encoded.total_frames - kept)
