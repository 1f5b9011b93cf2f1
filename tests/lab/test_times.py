"""The reference that word times are measured against, and the measurement itself."""

from __future__ import annotations

import numpy as np
import pytest

from service.lab.evaluate import transcribe
from service.lab.recipe import Material
from service.lab.times import TimedUtterance, matched, measure, sounding, timed_digits
from service.model.fake import FakeModel
from service.profiles import BUILT_IN
from service.types import SAMPLE_RATE, Samples


def tone(hertz: float, seconds: float) -> Samples:
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def test_silence_at_a_clips_edges_is_no_speech() -> None:
    hiss = 1e-3 * tone(3000, 0.2)
    clip = np.concatenate([hiss, tone(300, 0.3), hiss])
    begin, end = sounding(clip)
    assert begin == pytest.approx(0.2 * SAMPLE_RATE, abs=0.005 * SAMPLE_RATE)
    assert end == pytest.approx(0.5 * SAMPLE_RATE, abs=0.005 * SAMPLE_RATE)
    assert sounding(np.zeros(800, np.float32)) == (0, 800)


def test_strings_say_where_their_words_are(speech: Material) -> None:
    strings = timed_digits(speech.digits, 5, seed=3)
    for string in strings:
        assert len(string.words) == len(string.spans) >= 3
        flat = [time for span in string.spans for time in span]
        assert flat == sorted(flat)
        assert 0.25 <= flat[0] < flat[-1] <= len(string.samples) / SAMPLE_RATE - 0.25


@pytest.mark.parametrize(
    ("said", "pairs"),
    [
        ("one two three", [(0, 0), (1, 1), (2, 2)]),
        ("one three", [(0, 0), (2, 1)]),
        ("one two two three", [(0, 0), (1, 2), (2, 3)]),
        ("nine two three", [(1, 1), (2, 2)]),
        ("", []),
    ],
)
def test_words_are_matched_by_place(said: str, pairs: list[tuple[int, int]]) -> None:
    assert matched("one two three".split(), said.split()) == pairs  # noqa: SIM905 - as spoken


def test_errors_are_those_of_the_words_that_were_read() -> None:
    model = FakeModel()
    samples = np.concatenate([tone(300, 2.0), tone(900, 1.0)])
    silent = TimedUtterance(samples, (), ())
    assert measure(model, [silent], BUILT_IN["dense"]).summary() == {"words": 0, "read": 0}
    # The fake's words last a second each; say that the last began and ended 0.25 s earlier.
    spans = ((0.0, 1.0), (1.0, 2.0), (1.75, 2.75))
    words = tuple(heard(model, samples))
    figures = measure(model, [TimedUtterance(samples, words, spans)], BUILT_IN["dense"]).summary()
    assert (figures["words"], figures["read"]) == (3, 3)
    assert figures["start mean"] == pytest.approx(0.25 / 3)
    assert figures["end within 0.1"] == pytest.approx(2 / 3)
    unread = TimedUtterance(samples, (*words[:2], "nobody"), spans)
    assert measure(model, [unread], BUILT_IN["dense"]).summary()["read"] == 2


def heard(model: FakeModel, samples: Samples) -> list[str]:
    (text,) = transcribe(model, [samples], BUILT_IN["dense"])
    return text.split()
