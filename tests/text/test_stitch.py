"""Windows become one recording: ids, times, text, language."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.text.progress import whole_text
from service.text.stitch import WindowText, main_language, stitch
from service.text.timestamps import compression_ratio
from service.types import SAMPLE_RATE, Hypothesis, Piece, Window

HEARD = Hypothesis(
    tokens=(),
    avg_logprob=-0.2,
    no_speech_prob=0.1,
    temperature=0.0,
    language="en",
    ended=True,
    kept_frames=1500,
    total_frames=1500,
)


Said = tuple[float | None, float | None, str]  # from second to second, this


def window_text(
    start_s: float, duration_s: float, *said: Said, hypothesis: Hypothesis = HEARD
) -> WindowText:
    samples = np.zeros(round(duration_s * SAMPLE_RATE), np.float32)
    pieces = tuple(Piece(*one, tokens=(number,)) for number, one in enumerate(said))
    return WindowText(Window(0, start_s, samples), hypothesis, pieces)


def test_a_text_that_is_gone_on_with_ends_where_the_rest_begins() -> None:
    """Its last timestamp may span a pause and what is said after it."""
    whole = window_text(0.0, 20.0, (0.5, 20.0, " one"))
    rest = window_text(5.0, 15.0, (1.0, 3.0, " two"))
    segments = stitch([whole, rest], 20.0)
    assert [(s.start, s.end) for s in segments] == [(0.5, 5.0), (6.0, 8.0)]


def test_each_segment_has_the_log_probabilities_of_its_own_tokens() -> None:
    heard = replace(HEARD, tokens=(7, 8, 9, 7, 5), token_logprobs=(-0.1, -0.2, -0.3, -0.4, -0.5))
    pieces = (
        Piece(0.0, 1.0, " a", (7, 8)),
        Piece(1.0, 1.5, "  ", (9,)),
        Piece(2.0, 3.0, " b", (7,)),
    )
    one = replace(window_text(0.0, 5.0, hypothesis=heard), pieces=pieces)
    segments = stitch([one], 5.0)
    assert [(s.tokens, s.token_logprobs) for s in segments] == [
        ((7, 8), (-0.1, -0.2)),
        ((7,), (-0.4,)),
    ]


def test_segments_are_numbered_through_and_timed_in_the_recording() -> None:
    windows = [
        window_text(0.0, 10.0, (0.0, 4.0, " one"), (5.0, 9.0, " two")),
        window_text(12.0, 8.0, (1.0, None, " three")),
    ]
    segments = stitch(windows, 20.0)
    assert [(s.id, s.start, s.end, s.text) for s in segments] == [
        (0, 0.0, 4.0, " one"),
        (1, 5.0, 9.0, " two"),
        (2, 13.0, 20.0, " three"),
    ]
    assert [s.tokens for s in segments] == [(0,), (1,), (0,)]
    assert whole_text(segments) == "one two three"


def test_segments_carry_their_windows_figures() -> None:
    doubtful = replace(HEARD, avg_logprob=-0.7, no_speech_prob=0.3, temperature=0.2)
    segments = stitch([window_text(0, 9, (0, 1, " a"), (1, 2, " a"), hypothesis=doubtful)], 9.0)
    for segment in segments:
        assert (segment.avg_logprob, segment.no_speech_prob) == (-0.7, 0.3)
        assert segment.temperature == 0.2
        assert segment.compression_ratio == compression_ratio("a a")


def test_a_silent_window_gives_no_text() -> None:
    silent = replace(HEARD, no_speech_prob=0.9, avg_logprob=-2.0)
    windows = [
        window_text(0, 5, (0, 1, " Thank you."), hypothesis=silent),
        window_text(5, 5, (0, 1, " yes")),
    ]
    segments = stitch(windows, 10.0)
    assert [(s.id, s.text) for s in segments] == [(0, " yes")]


@pytest.mark.parametrize(
    ("language", "first", "second", "whole"),
    [
        ("en", " one", " two", "one two"),
        ("en", "one", "two", "one two"),
        ("en", "one ", "two", "one two"),
        ("zh", "一", "二", "一二"),
        ("ja", "いち", "に", "いちに"),
    ],
)
def test_words_of_two_windows_are_kept_apart_where_the_language_does(
    language: str, first: str, second: str, whole: str
) -> None:
    hypothesis = replace(HEARD, language=language)
    windows = [
        window_text(0, 5, (0, 1, first), hypothesis=hypothesis),
        window_text(5, 5, (0, 1, second), hypothesis=hypothesis),
    ]
    assert whole_text(stitch(windows, 10.0)) == whole


def test_pieces_of_one_window_are_joined_as_the_model_wrote_them() -> None:
    assert whole_text(stitch([window_text(0, 5, (0, 1, " 3"), (1, 2, ",5"))], 5.0)) == "3,5"


def test_nothing_heard_is_an_empty_text() -> None:
    assert stitch([], 3.0) == ()
    assert whole_text(()) == ""


seconds = st.none() | st.floats(-1, 31)
pieces = st.lists(st.tuples(seconds, seconds, st.sampled_from([" a", "b", " "])), max_size=4)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 30), pieces), max_size=5))
def test_times_are_ordered_and_inside_the_audio(
    plan: list[tuple[float, float, list[Said]]],
) -> None:
    windows, clock_s = [], 0.0
    for gap_s, length_s, given_pieces in plan:
        # 1 s of audio for each, so that the stated window is what bounds the times.
        windows.append(window_text(clock_s + gap_s, length_s, *given_pieces))
        clock_s += gap_s + length_s
    segments = stitch(windows, clock_s)
    times = [time for s in segments for time in (s.start, s.end)]
    assert times == sorted(times)
    assert all(0 <= time <= clock_s for time in times)
    assert [s.id for s in segments] == list(range(len(segments)))
    assert "".join(s.text for s in segments).strip() == whole_text(segments)


def test_the_language_is_that_of_most_windows_with_text() -> None:
    german = replace(HEARD, language="de")
    silent = replace(HEARD, language="fr", no_speech_prob=0.9, avg_logprob=-2.0)
    windows = [
        window_text(0, 1, (0, 1, " a"), hypothesis=silent),
        window_text(1, 1, (0, 1, " b"), hypothesis=silent),
        window_text(2, 1, (0, 1, " c"), hypothesis=german),
    ]
    assert main_language(windows, "en") == "de"
    assert main_language(windows[:1], "en") == "fr"
    assert main_language([], "en") == "en"
