"""The engine's life: load, warm up, serve, drain, stop. The door that the pipeline knocks at."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch

from service.config import ServerConfig
from service.engine.budget import budget_for
from service.engine.faults import DeviceGoneError
from service.engine.intake import RETRY_AFTER_S, Intake, State
from service.engine.lane import Lane, lane_for
from service.engine.loop import Loop
from service.engine.probe import tried, warm_up
from service.engine.turns import Turns
from service.errors import EngineError, NotReady, WinnowError
from service.metrics import ModelMetrics
from service.model.protocol import SpeechModel
from service.profiles import Profile
from service.types import Job

log = logging.getLogger(__name__)

# How long `stop` waits for the device's thread, which may be in the middle of a long encode.
STOP_S = 30.0
LOAD_TIMEOUT_S = 1800.0  # a large checkpoint on a slow disk, or its first download
RECOVERY_S = 5.0  # between two probes of a lost device


class Engine:
    """Serves jobs with the model that `load` returns, on a thread of its own.

    `load` runs on that thread, then a silent window through the profiles of `warm_up`.
    After the device was lost, it is probed every `recovery_s` (RECOVERY_S), a dozen times; then
    the thread ends.
    Engines with the same `turns` take turns on the device. It encodes on a `lane`, by default what
    is best for the device.
    Deadlines and submissions are read on `clock`.
    """

    def __init__(
        self,
        load: Callable[[], SpeechModel],
        config: ServerConfig,
        metrics: ModelMetrics,
        *,
        warm_up: Callable[[], Iterable[Profile]] = tuple,
        recovery_s: float | None = None,
        turns: Turns | None = None,
        lane: Lane | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._metrics = metrics
        self._warm_up = warm_up
        self._recovery_s = RECOVERY_S if recovery_s is None else recovery_s
        self._turns = turns or Turns()
        self._lane = lane
        self._clock = clock
        self._intake = Intake(config, metrics, clock)
        self._config = config
        self._model: SpeechModel | None = None
        self._loop: Loop | None = None
        self._fatal: Exception | None = None
        self.num_threads = 0  # of the model on a CPU; known when it is loaded
        # A daemon: a device that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._main, name="winnow-engine", daemon=True)

    @property
    def state(self) -> State:
        return self._intake.state

    @property
    def reason(self) -> str:
        """Why the engine is not ready, in words for people; empty while it is."""
        return self._intake.reason

    @property
    def failed_for_good(self) -> bool:
        """Whether the model could not be loaded, or the thread has ended: because of a device that
        was given up, or of a bug. What mends that is another process."""
        return self._fatal is not None

    @property
    def is_loaded(self) -> bool:
        """Whether the model is there, whatever the engine is at."""
        return self._model is not None

    @property
    def model(self) -> SpeechModel:
        """The model; raises NotReady until it is loaded. Only its `info` and `split_text` are
        for other threads."""
        if self._model is None:
            raise NotReady(f"not ready: {self.reason}", RETRY_AFTER_S)
        return self._model

    @property
    def num_outstanding(self) -> int:
        """Windows that were accepted and are not answered yet."""
        return self._intake.num_outstanding

    def waiting(self) -> tuple[int, float]:
        """Windows ahead of a newcomer, and those answered a second lately, infinite if unknown."""
        return self._intake.waiting()

    def start(self) -> None:
        """Begins to load, and returns at once."""
        self._thread.start()

    def wait_ready(self, timeout_s: float) -> None:
        """Returns when the engine is ready.

        Raises the error of loading or the one that ended the thread, NotReady if that takes longer
        or the engine is closed.
        """
        state = self._intake.wait_state("loading", timeout_s)
        if self._fatal is not None:
            raise self._fatal
        if state != "ready":
            raise NotReady(f"not ready: {self.reason}", RETRY_AFTER_S)

    def submit(self, jobs: Sequence[Job], *, admitted: bool = False) -> None:
        """Accepts all the jobs or none, from any thread, and returns at once.

        `admitted` jobs belong to a request that was accepted before: a drain takes them as well.

        Raises NotReady while loading, draining or failed; QueueFull with a time to try again;
        TooLarge for more windows than the queue can ever hold.
        """
        self._intake.submit(jobs, admitted=admitted)

    def withdraw(self, jobs: Sequence[Job]) -> None:
        """Cancels what is not answered yet of these jobs; the device drops it at its next step."""
        self._intake.withdraw(jobs)

    def begin_drain(self) -> None:
        """Not ready from now on; accepted work goes on."""
        self._intake.begin_drain()

    def drain(self, grace_s: float) -> bool:
        """Waits for accepted work; answers the rest with NotReady. True if there was no rest."""
        self._intake.begin_drain()
        finished = self._intake.wait_idle(grace_s)
        if not finished:
            self._intake.answer_all(_shutting_down)
        return finished

    def stop(self) -> None:
        """Ends the thread, and lets go of the model; whatever is not answered gets NotReady.
        Harmless if repeated."""
        self._intake.stop(_shutting_down)
        if self._loop is not None:
            self._loop.stop()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        self._model = self._loop = None

    def _main(self) -> None:
        try:
            loop = self._start_up()
            if loop is not None:
                loop.run()
        # Even SystemExit: whoever waits for an answer has to get one.
        except BaseException as error:
            reason = f"the engine's thread ended ({type(error).__name__})"
            if isinstance(error, DeviceGoneError):
                reason = str(error)
            log.critical(reason)
            self._intake.fail(reason, partial(EngineError, reason))
            self._fatal = EngineError(reason)

    def _start_up(self) -> Loop | None:
        begin = self._clock()
        try:
            model = self._load()
            self.num_threads = torch.get_num_threads()
            warm_up(model, tuple(self._warm_up()))
            lane = self._lane or tried(lane_for(model.info.device), model)
        except Exception as error:
            self._fatal = error
            text = str(error) if isinstance(error, WinnowError) else repr(error)
            log.exception("the model cannot be loaded")
            reason = f"the model cannot be loaded: {text}"
            self._intake.fail(reason, partial(EngineError, reason))
            return None
        self._model = model
        info = model.info
        self._metrics.model_info.info(
            {
                "name": info.name,
                "device": info.device,
                "dtype": info.dtype,
                "weight_dtype": info.weight_dtype,
                "threads": str(self.num_threads),
                "parameters": str(info.num_parameters),
            }
        )
        self._metrics.every.watch_device_memory(info.device)
        budget = budget_for(info, self._config)
        self._metrics.decode_memory("budget").set(budget.total)
        loop = self._loop = Loop(
            *(model, self._intake, self._metrics, self._recovery_s, self._clock),
            most_windows=self._config.max_decode_windows,
            budget=budget,
            turns=self._turns,
            lane=lane,
        )
        if self.state == "stopped":
            loop.stop()
        log.info("ready after %.1f s", self._clock() - begin)
        self._intake.open()
        return loop


def _shutting_down() -> NotReady:
    return NotReady("the service is shutting down", RETRY_AFTER_S)
