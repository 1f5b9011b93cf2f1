"""What is left of a window whose text ends before its speech."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from service.requests.rest import rest_of
from service.text.stitch import WindowText
from service.types import Hypothesis, Piece, Window

SAMPLES = np.arange(20 * 16_000, dtype=np.float32)
SPEECH = ((0.5, 4.0), (9.0, 10.0), (12.0, 12.5))
LANTERN = " Without a word Peter got up and lit his lantern."
HEARD = Hypothesis((1,), -0.2, 0.1, 0.0, "en", ended=True, kept_frames=9, total_frames=9)


def text_until(end_s: float | None, text: str = LANTERN, **window: object) -> WindowText:
    whole = replace(Window(3, 100.0, SAMPLES, 1, SPEECH), **window)  # type: ignore[arg-type]
    return WindowText(whole, HEARD, (Piece(0.2, end_s, text, (1,)),))


def test_speech_after_the_text_is_left_with_a_little_before_it() -> None:
    rest = rest_of(text_until(4.0))
    assert rest is not None
    assert (rest.index, rest.channel) == (3, 1)
    assert rest.start_s == pytest.approx(108.7)
    assert rest.samples[0] == SAMPLES[round(8.7 * 16_000)]
    assert rest.samples[-1] == SAMPLES[-1]
    assert np.array(rest.speech) == pytest.approx(np.array([(0.3, 1.3), (3.3, 3.8)]))


def test_text_that_ends_in_the_midst_of_speech_goes_on_right_there() -> None:
    rest = rest_of(text_until(2.0))
    assert rest is not None
    assert rest.start_s == pytest.approx(102.0)
    assert rest.speech is not None
    assert rest.speech[0] == pytest.approx((0.0, 2.0))


def test_speech_after_a_pause_is_left_though_the_time_of_a_short_text_reaches_into_it() -> None:
    rest = rest_of(text_until(13.0, " 4 to 7"))
    assert rest is not None
    assert rest.start_s == pytest.approx(108.7)


@pytest.mark.parametrize(
    "one",
    [
        text_until(12.5),
        text_until(11.0),  # half a second of speech: a word's end, or a last timestamp's haste
        text_until(None),  # a text without an end goes to the window's
        text_until(0.4),  # no progress
        text_until(4.0, speech=None),  # nobody listened
        text_until(4.0, speech=()),
        text_until(4.0, text=" "),  # no text at all is the guard's
        replace(text_until(4.0), hypothesis=replace(HEARD, ended=False)),
        replace(text_until(4.0), hypothesis=replace(HEARD, no_speech_prob=0.9, avg_logprob=-2)),
    ],
)
def test_nothing_is_left(one: WindowText) -> None:
    assert rest_of(one) is None
