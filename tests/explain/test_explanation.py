from __future__ import annotations

from dataclasses import replace

from service.explain.differences import CHANGED, MISSING, SAME
from service.explain.explanation import clock, explain
from service.profiles import BUILT_IN
from service.requests.guard import DOUBT, REPETITION, UNFINISHED
from service.types import Fallback, Reading

from .made import PAIRS, hypothesis, kept_of, one_window, pairs, reading, transcript, window


def test_words_are_compared_window_by_window_and_shown_where_they_were_said() -> None:
    ours = [(" red", 1.0, 1.5), (" cats", 2.0, 2.5), (" run", 31.0, 31.5)]
    dense = [(" Red", 1.1, 1.6), (" dogs", 2.0, 2.5), (" may", 30.5, 31.0), (" run", 31.0, 31.5)]
    readings = [reading(window(0, 30), pairs()), reading(window(30, 20, index=1), pairs())]
    made = explain("a.wav", PAIRS, transcript(*ours, readings=readings), transcript(*dense))
    first, second = made.panes
    assert [(word.text, word.mark) for word in first.words] == [(" red", SAME), (" cats", CHANGED)]
    assert [word.mark for word in first.dense_words] == [SAME, CHANGED]
    assert [(word.text, word.start) for word in second.words] == [(" run", 31.0)]
    assert [word.mark for word in second.dense_words] == [MISSING, SAME]
    assert (first.differences, second.differences) == ("1 changed", "1 missing")
    assert made.num_different == 2
    assert dict(made.facts)["words other than dense's"] == "2"
    assert (first.title, second.title) == (
        "Window 1, 0:00.00 to 0:30.00",
        "Window 2, 0:30.00 to 0:50.00",
    )


def test_the_log_mel_is_that_of_the_audio() -> None:
    pane = one_window([], []).panes[0]
    assert pane.mel_FT.shape == (80, 3000)
    assert (pane.mel_FT.min(), pane.mel_FT.max()) == (0, 1)
    tone = pane.mel_FT[:, :1200].mean(axis=1)
    assert 5 < tone.argmax() < 20  # 440 Hz
    assert (pane.mel_FT[:, 1210:] == 0).all()
    assert pane.audio_frames == 600


def test_a_window_that_was_decoded_again_is_shown_as_it_was_first() -> None:
    first = reading(window(0, 12), pairs(), "fast", (" oh", 0, 1), (" oh", 1, 2))
    second = Reading(window(0, 12), "dense", pairs(), hypothesis((" no", 0, 1)))
    third = Reading(window(0, 12), "dense", pairs(), hypothesis((" yes", 0, 1), temperature=0.2))
    fallbacks = [
        Fallback(0, REPETITION, "fast", "dense"),
        Fallback(0, DOUBT, "dense", "dense", 0.2),
    ]
    ours = transcript((" yes", 0, 1), readings=[first, second, third], fallbacks=fallbacks)
    (pane,) = explain("a.wav", PAIRS, ours, transcript((" yes", 0, 1))).panes
    assert pane.kept is first.kept
    assert pane.notes == (
        "Read again by dense, because its text repeated itself.",
        "Read again by dense, at temperature 0.2, because the model was in doubt.",
        "The frames below are those of the first attempt, which said: “oh oh”",
    )
    assert [word.text for word in pane.words] == [" yes"]


def test_a_text_that_was_gone_on_with_has_a_pane_for_its_rest() -> None:
    readings = [
        reading(window(3, 27), pairs(), "fast", (" one", 1, 2)),
        reading(window(20, 10), pairs(), "fast"),
        Reading(window(20, 10), "dense", pairs(), hypothesis((" two", 1, 2))),
    ]
    fallbacks = [Fallback(0, UNFINISHED, "fast", "fast"), Fallback(0, REPETITION, "fast", "dense")]
    ours = transcript((" one", 4, 5), (" two", 21, 22), readings=readings, fallbacks=fallbacks)
    first, rest = explain("a.wav", PAIRS, ours, transcript((" one", 4, 5))).panes
    assert (first.part, rest.part) == (0, 1)
    assert rest.title == "Window 1, rest 1, 0:20.00 to 0:30.00"
    assert [word.text for word in first.words] == [" one"]
    assert [word.text for word in rest.words] == [" two"]
    assert first.notes == ("Its text ended early: from 0:20.00 on it was read once more, below.",)
    assert rest.notes[1:] == (
        "Read again by dense, because its text repeated itself.",
        "The frames below are those of the first attempt, which said nothing.",
    )


def test_dense_is_compared_with_nothing() -> None:
    made = one_window([(" red", 1, 2)], [(" red", 1, 2)], profile=BUILT_IN["dense"])
    assert made.panes[0].dense_words == ()
    assert [what for what, _ in made.facts] == ["model", "recording", "the decoder reads"]
    assert made.text_headings(made.panes[0]) == ["dense"]


def test_a_clock() -> None:
    assert [clock(seconds) for seconds in (0, 9.999, 61.5, 3599.994)] == [
        *("0:00.00", "0:10.00"),
        *("1:01.50", "59:59.99"),
    ]


def test_a_window_without_padding_has_its_own_clock() -> None:
    """599 frames of 12 s: where a model says how long one is, they are not 30 s."""
    whole = kept_of(range(0, 599, 2), [2] * 299 + [1])
    kept = replace(whole, importance=whole.importance[:599], frame_s=0.02)
    (pane,) = one_window([], [], kept).panes
    assert (pane.frame_s, pane.audio_frames) == (0.02, 599)
