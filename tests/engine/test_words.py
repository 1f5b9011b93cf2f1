"""Word times are found on a thread of their own, for each window by itself."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from service.errors import DeadlineExceeded, EngineError, NotReady
from service.families.fake import FakeModel
from service.families.whisper import Whisper
from service.metrics import ModelMetrics
from service.types import DecodeOptions, Encoded, Hypothesis, Job, Samples, Word
from tests.speech import SAMPLE, samples_of, seconds

from .conftest import Start
from .jobs import WAIT_S, make_job, text, tone, until


class FragileWhisper(Whisper):
    """Fails to find the words of a window that holds so many frames of the recording."""

    def __init__(self, model: Whisper, bad_frames: int) -> None:
        super().__init__(model.checkpoint)
        self.bad_frames = bad_frames
        self.seen: list[int | None] = []
        self.threads: set[str] = set()

    def find_words(
        self, encoded: Encoded, hypothesis: Hypothesis, options: DecodeOptions
    ) -> tuple[Word, ...]:
        self.threads.add(threading.current_thread().name)
        self.seen.append(encoded.audio_frames)
        if encoded.audio_frames == self.bad_frames:
            raise RuntimeError("told to fail")
        return super().find_words(encoded, hypothesis, options)


class SlowWords(FakeModel):
    """Finds no words until it is let go; counts those that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.begun = threading.Event()
        self.num_asked = 0

    def find_words(
        self, encoded: Encoded, hypothesis: Hypothesis, options: DecodeOptions
    ) -> tuple[Word, ...]:
        self.num_asked += 1
        self.begun.set()
        assert self.free.wait(WAIT_S)
        return super().find_words(encoded, hypothesis, options)


def speech(of_s: float) -> Samples:
    return np.resize(samples_of(SAMPLE), seconds(of_s))


def asking(job: Job) -> Job:
    return replace(job, options=replace(job.options, language="en", word_times=True))


@pytest.mark.model
def test_words_that_cannot_be_found_fail_their_window_alone(tiny_en: Whisper, start: Start) -> None:
    model = FragileWhisper(tiny_en, bad_frames=100)
    engine = start(model, batch_wait_ms=50)
    good = [asking(make_job(f"r{i}", speech(of_s))) for i, of_s in enumerate((1.5, 2.5))]
    bad, plain = asking(make_job("bad", speech(2.0))), make_job("plain", speech(2.0))
    plain = replace(plain, options=replace(plain.options, language="en"))
    for job in (good[0], bad, plain, good[1]):
        engine.submit([job])
    for job in good:
        result = job.reply.result(WAIT_S)
        words = result.hypothesis.words
        assert words
        assert all(0 <= w.start <= w.end <= job.window.duration_s for w in words)
        assert result.timings.decode > 0
    with pytest.raises(EngineError, match="RuntimeError"):
        bad.reply.result(WAIT_S)
    assert plain.reply.result(WAIT_S).hypothesis.words == ()
    assert sorted(map(int, filter(None, model.seen))) == [75, 100, 125]
    assert model.threads == {"winnow-words"}


def test_nobody_waits_for_anothers_words(start: Start) -> None:
    model = SlowWords()
    engine = start(model)
    slow = asking(make_job("slow", tone(300)))
    engine.submit([slow])
    assert model.begun.wait(WAIT_S)
    for number in range(3):
        other = make_job(f"other{number}", tone(900))
        engine.submit([other])
        assert text(other)
    assert not slow.reply.done()
    model.free.set()
    assert slow.reply.result(WAIT_S).hypothesis.words


def test_words_that_nobody_waits_for_any_more_are_not_found(start: Start) -> None:
    model = SlowWords()
    now = [0.0]
    engine = start(model, clock=lambda: now[0], batch_wait_ms=0)
    held = asking(make_job("held", tone(300)))
    left = asking(make_job("left", tone(300)))
    late = asking(make_job("late", tone(300), deadline=5.0))
    engine.submit([held, left, late])
    assert model.begun.wait(WAIT_S)
    loop = engine._loop
    assert loop is not None
    until(lambda: loop._words.num_waiting == 2)
    engine.withdraw([left])
    now[0] = 6.0
    model.free.set()
    assert held.reply.result(WAIT_S).hypothesis.words
    with pytest.raises(DeadlineExceeded, match="words"):
        late.reply.result(WAIT_S)
    assert left.reply.cancelled()
    assert model.num_asked == 1


def test_states_that_wait_for_words_are_as_few_as_the_places(
    start: Start, metrics: ModelMetrics
) -> None:
    """The others wait their turn, and all are answered when words come."""
    model = SlowWords()
    engine = start(model, max_decode_windows=4)
    jobs = [asking(make_job(f"r{i}", tone(300))) for i in range(20)]
    for job in jobs:
        engine.submit([job])
    loop = engine._loop
    assert loop is not None
    until(lambda: loop._words.num_waiting == 4)
    time.sleep(0.2)  # all would be there by now
    # Of those beside them one is looked for, one is brought, and the rest are in decode.
    encoded = metrics.every.registry.get_sample_value("winnow_batch_windows_sum", {"model": "fake"})
    assert encoded is not None
    assert 4 + 1 <= encoded <= 4 + 1 + 4
    model.free.set()
    assert all(job.reply.result(WAIT_S).hypothesis.words for job in jobs)


def test_an_engine_that_stops_answers_those_who_wait_for_words(start: Start) -> None:
    model = SlowWords()
    engine = start(model)
    job = asking(make_job("r", tone(300)))
    engine.submit([job])
    assert model.begun.wait(WAIT_S)
    engine.stop()
    with pytest.raises(NotReady):
        job.reply.result(WAIT_S)
    model.free.set()
