"""Word times are found on the device thread, for each window on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from service.errors import EngineError
from service.model.decoding import WindowDecoder
from service.model.rows import WindowState
from service.model.whisper import Whisper
from service.types import Job, Samples, Word
from tests.speech import SAMPLE, samples_of, seconds

from .conftest import Start
from .jobs import WAIT_S, make_job


class FragileDecoder(WindowDecoder):
    """Fails to find the words of a window that holds so many frames of the recording."""

    bad_frames = 0
    seen: list[int | None]

    def _words(self, window: WindowState, tokens: Sequence[int]) -> tuple[Word, ...]:
        if window.encoded is not None:
            self.seen.append(window.encoded.audio_frames)
            if window.encoded.audio_frames == self.bad_frames:
                raise RuntimeError("told to fail")
        return super()._words(window, tokens)


class FragileWhisper(Whisper):
    def __init__(self, model: Whisper, bad_frames: int) -> None:
        super().__init__(model.checkpoint)
        self.bad_frames = bad_frames
        self.seen: list[int | None] = []

    def new_decode_batch(self) -> WindowDecoder:
        checkpoint = self.checkpoint
        batch = FragileDecoder(
            checkpoint.weights.decoder,
            checkpoint.vocabulary,
            self.rules,
            checkpoint.weights.dims.max_tokens,
            checkpoint.alignment,
        )
        batch.bad_frames, batch.seen = self.bad_frames, self.seen
        return batch


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
    assert {75, 100, 125} == set(model.seen)
