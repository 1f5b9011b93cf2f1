"""How much of the speech that was heard a text accounts for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.requests.coverage import (
    OPENING_CHARS,
    PEAK_S,
    Coverage,
    begins_again,
    cover,
    text_end,
    widened,
)
from service.requests.rest import LEAST_SPEECH_S
from service.text.timestamps import TimedPiece

# Where the VAD heard a reader of LibriSpeech, in a window of 26 s.
READER = ((0.3, 7.8), (8.5, 12.1), (13.1, 19.5), (20.3, 26.0))
YET = (
    " Yet the most charitable criticism must refuse these sectaries any knowledge of the pure and"
    " proper divinity of Christ."
)
AVENUE = " At the same time, every avenue of the throne was assaulted with gold."


def piece(start: float, end: float, text: str) -> TimedPiece:
    return TimedPiece(start, end, text, (1,))


def seconds(coverage: Coverage) -> tuple[float, float]:
    return coverage.skipped_s, coverage.left_s


def test_a_text_that_goes_with_its_speech_leaves_out_nothing() -> None:
    pieces = [piece(0, 8, YET), piece(8, 13, AVENUE), piece(13, 26, YET)]
    assert seconds(cover(READER, pieces)) == pytest.approx((0, 0))


@pytest.mark.parametrize("text", [" The most", " A", " \u2014", " F F", " 1"])
def test_a_few_letters_for_a_window_full_of_speech_pass_over_all_of_it(text: str) -> None:
    assert seconds(cover(READER, [piece(0, 26, text)])) == pytest.approx((23.2, 0))


def test_times_of_peaks_leave_out_no_pause_of_a_second() -> None:
    """CTC's pieces end with the surest moment of their last letter, and begin with the first's."""
    heard = ((0.0, 20.0),)
    short = [piece(5 * n + 0.4, 5 * n + 4.6, AVENUE) for n in range(4)]
    assert seconds(cover(heard, short)) == pytest.approx((2.8, 0.4))
    wide = widened(short, PEAK_S)
    assert seconds(cover(heard, wide)) == pytest.approx((0, 0))
    times = [time for one in wide for time in (one.start, one.end)]
    assert times == pytest.approx([0.0, 5.0, 5.0, 10.0, 10.0, 15.0, 15.0, 20.1])
    # What is really passed over is still seen.
    missing = widened([short[0], short[3]], PEAK_S)
    assert cover(heard, missing).skipped_s == pytest.approx(10.8 - 2 * PEAK_S)


def test_speech_after_the_last_piece_is_left() -> None:
    pieces = [piece(0, 8, YET), piece(8, 13, AVENUE)]
    assert seconds(cover(READER, pieces)) == pytest.approx((0, 12.1))


def test_speech_between_pieces_and_before_the_first_is_skipped() -> None:
    assert seconds(cover(READER, [piece(0, 8, YET), piece(20, 26, YET)])) == pytest.approx((10, 0))
    assert seconds(cover(READER, [piece(13, 26, YET)])) == pytest.approx((11.1, 0))


@pytest.mark.parametrize(
    ("speech_s", "text"),
    [
        (2.9, " A"),  # too little to judge by
        (6.1, " His life and his path had always provided him"),
        (4.0, " 4-2-7-1-9"),
        (8.0, " 42719 42719"),
        (3.9, "\u5f7c\u306f\u9053\u306e\u7aef"),
    ],
)
def test_slow_speech_is_no_gap(speech_s: float, text: str) -> None:
    assert seconds(cover(((0.0, speech_s),), [piece(0, speech_s, text)])) == pytest.approx((0, 0))


def test_short_words_far_apart_leave_less_than_is_acted_upon() -> None:
    coverage = cover(((0.0, 0.5), (20.0, 20.5)), [piece(0, 21, " Yes. No.")])
    assert coverage.skipped_s == 0
    assert coverage.left_s < LEAST_SPEECH_S


# Five digits, 5 s of silence, five digits; tiny.en heard the first five only, "until 10 s".
PHRASES = ((0.3, 2.6), (7.9, 10.3))


@pytest.mark.parametrize("text", [" 4 to 7 1 9", " 4, 2, 7, 1, 9", " four two seven"])
def test_a_phrase_after_a_pause_is_left_where_the_text_is_too_short_for_it(text: str) -> None:
    one = piece(0, 10, text)
    assert text_end(PHRASES, one) == 2.6
    assert seconds(cover(PHRASES, [one])) == pytest.approx((0, 2.4))
    more = piece(15, 18, " 4 to 7 1 9")
    assert seconds(cover((*PHRASES, (15.3, 17.6)), [one, more])) == pytest.approx((2.4, 0))


@pytest.mark.parametrize(
    ("speech", "text"),
    [
        (PHRASES, " 4 2 7 1 9 4 2 7 1 9"),
        (((0.3, 2.6), (5.5, 7.9)), " 4 to 7 1 9"),  # no long pause
        (PHRASES[:1], " 4"),
    ],
)
def test_a_text_is_as_long_as_its_times_say_where_it_may_be(
    speech: tuple[tuple[float, float], ...], text: str
) -> None:
    assert text_end(speech, piece(0, 10, text)) == 10


@pytest.mark.parametrize("speech", [None, ()])
def test_nothing_is_passed_over_where_nobody_listened_or_spoke(
    speech: tuple[()] | None,
) -> None:
    assert cover(speech, [piece(0, 26, " A")]) == Coverage()


@given(st.text(st.characters(codec="ascii"), max_size=60), st.text(max_size=60))
def test_a_text_begins_again_only_where_its_opening_is_said_twice(one: str, other: str) -> None:
    plain = " ".join((one + other).casefold().split())
    twice = plain.count(plain[:OPENING_CHARS]) > 1
    if begins_again(one + other):
        assert len(plain) > OPENING_CHARS
    elif len(plain) >= OPENING_CHARS:
        assert not twice


def test_a_text_that_begins_again_after_its_end() -> None:
    assert begins_again(YET + AVENUE + YET)
    assert begins_again(YET + AVENUE + YET[:50].upper())
    assert not begins_again(YET + AVENUE)
    assert not begins_again(YET + " Yet the most charitable of them refused.")
    assert not begins_again(" No." * 5)
