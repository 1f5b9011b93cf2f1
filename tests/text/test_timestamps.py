"""Times are complete, ordered and inside the audio, whatever the model gives."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whisper.utils import compression_ratio as whisper_compression_ratio

from service.text.timestamps import LEAST_S, TimedPiece, compression_ratio, lay_out, settle
from service.types import Piece

TINY = 1e-9  # of rounding
seconds = st.none() | st.floats(-5, 40)
tokens = st.tuples(st.integers(0, 9))
texts = st.sampled_from([" a", " b c", "", "  "])
pieces = st.lists(st.builds(Piece, seconds, seconds, texts, tokens))


@given(pieces, st.floats(0, 30))
def test_any_pieces_become_ordered_times_inside_the_window(
    given_pieces: list[Piece], duration_s: float
) -> None:
    settled = settle(given_pieces, duration_s)
    times = [time for piece in settled for time in (piece.start, piece.end)]
    assert times == sorted(times)
    assert all(0 <= time <= duration_s for time in times)
    least = min(LEAST_S, duration_s / max(1, len(settled)))
    assert all(piece.end - piece.start >= least - TINY for piece in settled)
    spoken = [(p.text, p.tokens) for p in given_pieces if p.text.strip()]
    assert [(p.text, p.tokens) for p in settled] == spoken


@given(st.lists(st.tuples(st.floats(-5, 40), st.floats(-5, 40))), st.floats(0, 20), st.floats(0, 9))
def test_any_spans_are_laid_out_in_order_and_each_has_a_length(
    spans: list[tuple[float, float]], begin: float, length: float
) -> None:
    end = begin + length
    laid = lay_out(spans, begin, end)
    least = min(LEAST_S, (end - begin) / max(1, len(spans)))
    assert len(laid) == len(spans)
    assert all(stop - start >= least - TINY for start, stop in laid)
    assert all(before[1] <= after[0] for before, after in pairwise(laid))
    assert all(begin <= time <= end for span in laid for time in span)
    again = lay_out(laid, begin, end)
    assert [t for span in again for t in span] == pytest.approx([t for span in laid for t in span])


def test_spans_that_need_nothing_stay_as_they_are() -> None:
    spans = [(0.5, 1.0), (1.0, 1.02), (4.0, 9.0)]
    assert lay_out(spans, 0.0, 9.0) == spans
    assert lay_out([(0.5, 0.5), (0.5, 1.0)], 0.0, 9.0) == [(0.5, 0.52), (0.52, 1.0)]


def test_times_that_the_model_gave_well_are_kept() -> None:
    settled = settle([Piece(0.5, 1.5, " one", (1,)), Piece(2.0, 3.0, " two", (2,))], 10.0)
    assert settled == [TimedPiece(0.5, 1.5, " one", (1,)), TimedPiece(2.0, 3.0, " two", (2,))]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(None, None)], [(0, 8)]),
        ([(None, 2.0), (None, 5.0)], [(0, 2), (2, 5)]),
        ([(1.0, None), (4.0, None)], [(1, 4), (4, 8)]),
        ([(1.0, 29.0), (30.0, 31.0)], [(1, 7.98), (7.98, 8)]),
        ([(3.0, 5.0), (4.0, 6.0)], [(3, 5), (5, 6)]),
        ([(5.0, 2.0)], [(5, 5.02)]),
    ],
    ids=["no times", "no starts", "no ends", "past the window", "overlap", "backwards"],
)
def test_missing_and_impossible_times(
    times: list[tuple[float | None, float | None]], expected: list[tuple[float, float]]
) -> None:
    given_pieces = [Piece(start_s, end_s, " a", ()) for start_s, end_s in times]
    assert [(p.start, p.end) for p in settle(given_pieces, 8.0)] == expected


@pytest.mark.parametrize("text", ["one", " seven seven seven" * 20, "été 数字", "a b c d e f g"])
def test_compression_ratio_is_whispers(text: str) -> None:
    assert compression_ratio(text) == whisper_compression_ratio(text)


def test_compression_ratio_of_nothing_is_zero() -> None:
    assert compression_ratio("") == 0
