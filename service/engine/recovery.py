"""What is done about a fault: a window is to blame, fewer go at once, or the device is lost.

A window is to blame if a silent one does well after it. If that fails too, it is the device:
everybody is answered, readiness goes, and the device is probed until it works again or is given up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from service.engine.faults import (
    DeviceGoneError,
    DeviceLostError,
    Room,
    failed_window,
    give_back_memory,
    is_out_of_memory,
    report,
)
from service.engine.intake import Intake
from service.engine.probe import probe
from service.engine.replies import reject
from service.errors import EngineError
from service.model.protocol import SpeechModel
from service.profiles import BUILT_IN
from service.types import Job

log = logging.getLogger(__name__)

# Of a lost device, a minute as the service has it; then whoever watches the process starts another.
MOST_PROBES = 12


class Recovery:
    """`room`: how many windows are decoded at once, since memory ran out."""

    def __init__(self, model: SpeechModel, intake: Intake, most_windows: int) -> None:
        self._model, self._intake = model, intake
        self.room = Room(most_windows)
        self._failed_probes: int | None = None  # since the device was lost; None: it is not

    @property
    def is_lost(self) -> bool:
        """Whether the device was lost, and has not answered a probe since."""
        return self._failed_probes is not None

    def put_back(self, jobs: Sequence[Job], limit: int) -> None:
        """Jobs for which there was no memory wait again, ahead of everybody; fewer go at once."""
        self.room.shrink(limit)
        log.warning(
            "out of memory: %d windows wait again, %d are decoded at once from now on",
            *(len(jobs), self.room.limit),
        )
        self._intake.put_back(jobs)
        give_back_memory()

    def blame(self, job: Job, error: Exception) -> None:
        """Answers the job with an error. Raises DeviceLostError if the device does not do well
        without it either."""
        self.probe()
        if is_out_of_memory(error):
            self.room.restore()
        reject(job, failed_window(error))

    def probe(self) -> None:
        """Raises DeviceLostError if the device fails on a silent window."""
        try:
            probe(self._model, BUILT_IN["dense"])
        except Exception as error:
            raise DeviceLostError(f"{type(error).__name__}: {error}") from None

    def lose(self, error: Exception, num_decoding: int) -> None:
        """Not ready until the device answers a probe; everybody who waits gets an error."""
        if isinstance(error, DeviceLostError):
            reason = f"the device failed: {error}"
        else:
            report("the engine", num_decoding, error)
            reason = f"the engine failed ({type(error).__name__})"
        log.error("not ready, %s", reason)
        self._failed_probes = 0
        self._intake.fail(reason, _engine_failed)

    def try_again(self) -> None:
        """One probe of a lost device. Raises DeviceGoneError for the last one that is tried."""
        try:
            self.probe()
        except DeviceLostError as error:
            self._count_failed_probe(f"the device failed: {error}")
            return
        log.warning("the device works again")
        self._failed_probes = None
        self._intake.open()

    def _count_failed_probe(self, reason: str) -> None:
        self._failed_probes = (self._failed_probes or 0) + 1
        self._intake.fail(reason, _engine_failed)
        if self._failed_probes >= MOST_PROBES:
            raise DeviceGoneError(f"{reason}, {MOST_PROBES} times in a row")


def _engine_failed() -> EngineError:
    return EngineError("the model or its device failed")
