"""Words go to the segments that hold their text, and stay inside them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.text.stitch import WindowText, stitch
from service.text.words import by_piece, place
from service.types import Piece, Word

from .test_stitch import HEARD, window_text

Times = st.floats(-5, 40, allow_nan=False)


def words(*said: tuple[float, float, str]) -> tuple[Word, ...]:
    return tuple(Word(start, end, text, 0.5) for start, end, text in said)


def test_words_go_to_the_piece_that_holds_their_text() -> None:
    pieces = [Piece(None, None, text, ()) for text in (" one two", "  ", "three", " four five")]
    said = [" one", " two", "  ", "three", " four", " five"]
    parts = by_piece([Word(0, 1, text, 0.5) for text in said], pieces)
    assert [[w.text for w in part] for part in parts] == [
        [" one", " two"],
        ["three"],
        [" four", " five"],
    ]
    assert by_piece((), pieces) == [(), (), ()]
    assert by_piece((), []) == []


def test_words_are_moved_to_the_recording_and_into_the_segment() -> None:
    heard = words((0.5, 1.0, " a"), (1.0, 2.5, " b"), (2.5, 9.0, " c"))
    assert place(heard, 10.0, 10.8, 13.0) == words(
        (10.8, 11.0, " a"), (11.0, 12.5, " b"), (12.5, 13.0, " c")
    )


def test_words_that_the_segment_does_not_hold_share_it() -> None:
    heard = words((5.0, 6.0, "a"), (6.0, 7.0, " b"))
    assert place(heard, 0.0, 1.0, 3.0, space=" ") == words((1.0, 2.0, " a"), (2.0, 3.0, " b"))


def test_a_space_between_windows_goes_to_the_word_too() -> None:
    windows = [
        window_text(0, 10, (0, 4, "one"), hypothesis=replace(HEARD, words=words((0, 4, "one")))),
        window_text(10, 10, (0, 4, "two"), hypothesis=replace(HEARD, words=words((1, 3, "two")))),
    ]
    first, second = stitch(windows, 20.0)
    assert (first.words, second.words) == (words((0, 4, "one")), words((11, 13, " two")))
    assert second.text == " two"


@st.composite
def heard(draw: st.DrawFn) -> WindowText:
    """A window whose pieces and words have any times at all."""
    texts = draw(st.lists(st.lists(st.sampled_from([" a", " bc", "d"]), min_size=1), max_size=4))
    pieces = [(draw(st.none() | Times), draw(st.none() | Times), "".join(piece)) for piece in texts]
    said = words(*((draw(Times), draw(Times), text) for piece in texts for text in piece))
    return window_text(0.0, 5.0, *pieces, hypothesis=replace(HEARD, words=said))


@given(st.lists(heard(), max_size=3), st.sampled_from([(0.0, 4.99, 10.0), (0.0, 3.0, 4.5)]))
def test_words_are_ordered_inside_their_segments_and_lose_nothing(
    windows: list[WindowText], starts: tuple[float, ...]
) -> None:
    """Windows overlap where one goes on with the text of the one before it."""
    windows = [
        replace(one, window=replace(one.window, start_s=start))
        for one, start in zip(windows, starts, strict=False)
    ]
    segments = stitch(windows, 15.0)
    every_segment = [(segment.start, segment.end) for segment in segments]
    for spans in (every_segment, *([(w.start, w.end) for w in s.words] for s in segments)):
        assert all(end - start > 0.0199 for start, end in spans)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    every = [word for segment in segments for word in segment.words]
    for segment in segments:
        assert "".join(word.text for word in segment.words) == segment.text
        assert all(segment.start <= w.start <= w.end <= segment.end for w in segment.words)
    assert all(before.end <= after.start for before, after in pairwise(every))
    assert all(word.start >= 0 and word.end <= 15.0 for word in every)


@pytest.mark.parametrize("space", ["", " "])
def test_no_words_are_no_words(space: str) -> None:
    assert place((), 3.0, 4.0, 5.0, space) == ()
