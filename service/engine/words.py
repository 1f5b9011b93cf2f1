"""Times of words, on a thread of their own: what is decoded meanwhile does not wait for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty, Queue

import torch

from service.engine.faults import failed_window, report
from service.engine.replies import reject
from service.errors import DeadlineExceeded
from service.model.protocol import SpeechModel
from service.types import Encoded, Hypothesis, Job


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    job: Job
    encoded: Encoded
    hypothesis: Hypothesis
    num_threads: int
    then: Callable[[Hypothesis], None]


class WordThread:
    """Finds the words of windows that are decoded, one after the other. A window whose words
    cannot be found is answered with an error; the others know nothing of it. At most `most` wait,
    with their states: then whoever brings another waits as well."""

    def __init__(self, model: SpeechModel, clock: Callable[[], float], most: int) -> None:
        self._model, self._clock = model, clock
        self._tasks: Queue[_Task | None] = Queue(most)
        # A daemon, as the device's thread is.
        self._thread = threading.Thread(target=self._run, name="winnow-words", daemon=True)

    @property
    def num_waiting(self) -> int:
        """Windows whose words nobody has begun to look for."""
        return self._tasks.qsize()

    def find(
        self,
        job: Job,
        encoded: Encoded,
        hypothesis: Hypothesis,
        num_threads: int,
        then: Callable[[Hypothesis], None],
    ) -> None:
        """Has `then` called with the hypothesis and its words, by the thread, which computes on
        `num_threads`. To be called by one thread."""
        if not self._thread.is_alive():
            self._thread.start()
        self._tasks.put(_Task(job, encoded, hypothesis, num_threads, then))

    def stop(self) -> None:
        """Ends the thread after what it is at; who still waits is not the thread's to answer."""
        try:
            while True:
                self._tasks.get_nowait()
        except Empty:
            self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                self._answer(task)
            except Exception as error:
                report("words", 1, error)
                reject(task.job, failed_window(error))
            del task  # it holds the window's states until the next one comes

    def _answer(self, task: _Task) -> None:
        if task.job.reply.done():
            return
        if task.job.deadline <= self._clock():
            reject(task.job, DeadlineExceeded("the deadline passed while words were found"))
            return
        torch.set_num_threads(task.num_threads)
        words = self._model.find_words(task.encoded, task.hypothesis, task.job.options)
        task.then(replace(task.hypothesis, words=words))
