"""The beam's arithmetic, without a model; what it amounts to is compared in test_decoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.decode.search import Candidate, Scored, best, max_finished, place, rank

EOT = 9


def test_the_likeliest_go_on_and_an_end_counts_only_before_the_last_of_them() -> None:
    candidates = [
        Candidate(0, 1, -1.0),
        Candidate(0, EOT, -2.0),
        Candidate(1, 2, -3.0),
        Candidate(1, EOT, -4.0),
        Candidate(2, 3, -5.0),
    ]
    kept, ended = rank(list(reversed(candidates)), beam_size=2, eot=EOT)
    assert kept == [candidates[0], candidates[2]]
    assert ended == [candidates[1]]


@pytest.mark.parametrize(
    ("beam_size", "patience", "most"), [(5, 1.0, 5), (4, 2.0, 8), (5, 0.5, 2), (2, 0.1, 1)]
)
def test_patience_is_a_multiple_of_the_beam(beam_size: int, patience: float, most: int) -> None:
    assert max_finished(beam_size, patience) == most


SHORT, LONG = Scored((1, 2), -2.2, True), Scored((1, 2, 3, 4), -4.0, True)


@pytest.mark.parametrize(("length_penalty", "winner"), [(None, LONG), (0.0, SHORT), (1.0, SHORT)])
def test_a_length_penalty_decides_between_short_and_long(
    length_penalty: float | None, winner: Scored
) -> None:
    # -1.1 against -1.0 a token; by the formula with 1: -2.2 / (7/6) against -4.0 / (9/6).
    assert best([SHORT, LONG], [], 2, length_penalty) == winner


def test_tokens_that_were_given_are_not_length() -> None:
    assert best([SHORT, LONG], [], 2, None, num_given=1) == LONG
    assert best([Scored((1, 2), -1.2, True), LONG], [], 2, None, num_given=1) == Scored(
        (1, 2), -1.2, True
    )


def test_sequences_that_have_not_ended_stand_in_for_missing_ones_only() -> None:
    going = [Scored((5, 5), -0.1, False)]
    assert best([SHORT, LONG], going, 2, None) == LONG
    assert best([SHORT], going, 2, None) == going[0]


@given(st.integers(1, 8).flatmap(lambda n: st.lists(st.integers(0, n - 1), min_size=1, max_size=8)))
def test_every_sequence_has_a_row_and_stays_if_it_is_the_first_from_there(
    sources: list[int],
) -> None:
    places = place(sources)
    assert sorted(places) == list(range(len(sources)))
    for source in set(sources) & set(places):
        assert places[sources.index(source)] == source
