"""Utterances while they are said: a clock of chunks and probabilities, nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.audio.endpoint import (
    MAX_CHUNKS,
    PAUSE,
    USUAL,
    Begun,
    Ended,
    Endpoint,
    Manner,
    Mark,
    Utterance,
    advance,
    change,
    clear,
    finish,
)
from service.audio.segment import MIN_SPEECH, PADDING, Floats


def probabilities(*runs: tuple[float, int]) -> Floats:
    """(probability, chunks) one after the other."""
    return np.concatenate([np.full(n, p, np.float32) for p, n in runs])


def utterances(marks: Iterable[Mark]) -> list[Utterance]:
    return [mark.utterance for mark in marks if isinstance(mark, Ended)]


def marked(
    heard: Floats,
    loud: Floats | None = None,
    step: int = 1000,
    manner: Manner = USUAL,
) -> tuple[Endpoint, list[Mark]]:
    loud = np.ones_like(heard) if loud is None else loud
    state = Endpoint(manner)
    marks: list[Mark] = []
    for at in range(0, len(heard), step):
        state, some = advance(state, heard[at : at + step], loud[at : at + step])
        marks += some
    return state, marks


def play(
    heard: Floats, loud: Floats | None = None, step: int = 1000
) -> tuple[Endpoint, list[Utterance]]:
    state, marks = marked(heard, loud, step)
    return state, utterances(marks)


def test_a_pause_ends_an_utterance_with_its_padding() -> None:
    state, ended = play(probabilities((0, 50), (0.9, 40), (0, PAUSE)))
    assert ended == [Utterance(50 - PADDING, 90 + PADDING)]
    assert state.opened == -1


def test_it_ends_no_chunk_before_the_pause_is_long_enough() -> None:
    state, ended = play(probabilities((0, 50), (0.9, 40), (0, PAUSE - 1)))
    assert ended == []
    assert state.opened == 50 - PADDING


def test_a_shorter_pause_is_part_of_it() -> None:
    heard = probabilities((0, 20), (0.9, 20), (0, PAUSE - 1), (0.9, 20), (0, PAUSE))
    _, ended = play(heard)
    assert ended == [Utterance(20 - PADDING, 59 + PAUSE + PADDING)]


@pytest.mark.parametrize("click", [0, 1])
def test_what_will_end_is_known_once_its_padding_is(click: int) -> None:
    heard = probabilities((0, 20), (0.9, 20), (0, PADDING), (0.9, click), (0, PAUSE))
    state = Endpoint()
    likely: list[Utterance | None] = []
    ended: list[Utterance] = []
    for at in range(len(heard)):
        state, some = advance(state, heard[at : at + 1], np.ones(1, np.float32))
        likely.append(state.likely)
        ended += utterances(some)
    assert ended == [Utterance(20 - PADDING, 40 + PADDING)]
    known = [at for at, one in enumerate(likely) if one is not None]
    assert known[0] == 40 + PADDING - 1
    assert {likely[at] for at in known} == set(ended)
    assert all(likely[40 + PADDING + at] is None for at in range(click))


def test_nothing_is_likely_where_speech_goes_on() -> None:
    state, _ = play(probabilities((0.9, 20), (0, PADDING - 1)))
    assert state.likely is None
    state, _ = play(probabilities((0.9, 20), (0, PADDING + 2), (0.9, 20)))
    assert state.likely is None


def test_neighbours_share_no_chunk() -> None:
    _, ended = play(probabilities((0.9, 20), (0, PAUSE), (0.9, 20), (0, PAUSE)))
    assert ended == [Utterance(0, 29), Utterance(29, 34 + 20 + PADDING)]


def test_a_click_is_no_utterance_and_does_not_hold_audio() -> None:
    state, ended = play(probabilities((0, 30), (0.9, MIN_SPEECH - 1), (0, 100)))
    assert ended == []
    assert finish(state)[1] == ()
    assert state.needed_from == state.at - PADDING


def test_a_click_before_a_pause_does_not_belong_to_the_utterance_after_it() -> None:
    _, ended = play(probabilities((0, 30), (0.9, 1), (0, 6), (0.9, 20), (0, PAUSE)))
    assert ended == [Utterance(37 - PADDING, 57 + PADDING)]


def test_the_end_of_the_stream_ends_it_too() -> None:
    state, ended = play(probabilities((0, 30), (0.9, 20), (0, 2)))
    assert ended == []
    state, ended_now = finish(state)
    assert ended_now == (Ended(Utterance(21, 52), at=52, paused=False),)
    assert finish(state)[1] == ()


def test_endless_speech_is_cut_where_it_is_quietest() -> None:
    heard = probabilities((0.9, MAX_CHUNKS + 10))
    loud = np.ones_like(heard)
    quiet = MAX_CHUNKS - 100
    loud[quiet - 3 : quiet + 4] = 0.01
    state, ended = play(heard, loud)
    assert len(ended) == 1
    assert abs(ended[0].last - quiet) <= 1
    assert state.opened == ended[0].last


def test_a_cut_in_a_pause_leaves_nothing_open() -> None:
    """Speech stops just before the limit: the cut falls behind it, and silence opens nothing."""
    heard = probabilities((0.9, MAX_CHUNKS - 3), (0, PAUSE + 20))
    state, ended = play(heard, loud=heard)
    assert [one.last - one.first <= MAX_CHUNKS for one in ended] == [True] * len(ended)
    assert (ended[0].last >= MAX_CHUNKS - 3) == (len(ended) == 1)
    assert state.opened == -1


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_who_begins_to_speak_is_told_once_and_when_the_pause_was_long_enough(step: int) -> None:
    heard = probabilities((0, 50), (0.9, 40), (0, PAUSE), (0, 30), (0.9, 20), (0, 5))
    _, marks = marked(heard, step=step)
    assert marks == [
        Begun(50 - PADDING),
        Ended(Utterance(50 - PADDING, 90 + PADDING), 90 + PAUSE, paused=True),
        Begun(120 + PAUSE - PADDING),
    ]


def test_a_cut_does_not_pause_the_speech_it_cuts() -> None:
    heard = probabilities((0.9, MAX_CHUNKS + 10), (0, PAUSE))
    _, marks = marked(heard)
    assert [type(mark) for mark in marks] == [Begun, Ended, Ended]
    assert [mark.paused for mark in marks if isinstance(mark, Ended)] == [False, True]


@pytest.mark.parametrize(
    ("manner", "expected"),
    [
        (Manner(), Ended(Utterance(30 - PADDING, 50 + PADDING), 50 + PAUSE, True)),
        (Manner(before=0), Ended(Utterance(30, 50 + PADDING), 50 + PAUSE, True)),
        (Manner(before=20), Ended(Utterance(10, 50 + PADDING), 50 + PAUSE, True)),
        (Manner(pause=6), Ended(Utterance(30 - PADDING, 56), 56, True)),
        (Manner(pause=60), Ended(Utterance(30 - PADDING, 50 + PADDING), 110, True)),
        (Manner(on=0.7, off=0.55), None),
        (Manner(on=0.3, off=0.15), Ended(Utterance(30 - PADDING, 50 + PADDING), 50 + PAUSE, True)),
    ],
)
def test_the_manner_says_what_speech_and_pauses_are(manner: Manner, expected: Ended | None) -> None:
    _, marks = marked(probabilities((0, 30), (0.6, 20), (0, 70)), manner=manner)
    assert [mark for mark in marks if isinstance(mark, Ended)] == ([expected] if expected else [])


def test_what_was_cleared_is_in_no_later_utterance() -> None:
    state, _ = marked(probabilities((0.9, 30)))
    state = clear(state)
    assert (state.opened, state.needed_from) == (-1, 30)
    assert finish(state) == (state, ())
    state, marks = advance(state, probabilities((0.9, 10)), np.ones(10, np.float32))
    assert marks == (Begun(30),)


def test_another_manner_reaches_back_to_nothing_that_is_gone_or_was_told() -> None:
    state, _ = marked(probabilities((0, 30)))
    state = change(state, Manner(before=25), state.needed_from)
    state, marks = advance(state, probabilities((0.9, 10)), np.ones(10, np.float32))
    assert marks == (Begun(30 - PADDING),)
    state = change(state, Manner(before=30), 0)
    assert state.opened == 30 - PADDING


runs = st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]), st.integers(1, 400)),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=50)
@given(runs, st.integers(1, 50))
def test_utterances_of_any_speech(given_runs: list[tuple[float, int]], step: int) -> None:
    """In order, disjoint, of at most 28 s, the same in any pieces, and all that counts is in."""
    heard = probabilities(*given_runs)
    state, whole = play(heard)
    assert (state.at, play(heard, step=step)[1]) == (len(heard), whole)
    whole += utterances(finish(state)[1])
    assert all(0 < one.last - one.first <= MAX_CHUNKS for one in whole)
    assert all(one.last <= after.first for one, after in pairwise(whole))
    inside = np.zeros(len(heard), bool)
    for one in whole:
        inside[one.first : one.last] = True
    assert inside[list(_certain(heard))].all()


def _certain(heard: Floats) -> Iterable[int]:
    """Chunks of runs of loud-and-clear speech that are too long for a click."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], heard >= 0.5, [0]]).astype(int)))
    for first, last in edges.reshape(-1, 2):
        if last - first >= MIN_SPEECH:
            yield from range(first, last)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_what_is_needed_is_never_let_go_of(step: int) -> None:
    rng = np.random.default_rng(0)
    heard = np.repeat(rng.random(200) > 0.5, rng.integers(1, 30, 200)).astype(np.float32)
    state, let_go = Endpoint(), 0
    for at in range(0, len(heard), step):
        part = heard[at : at + step]
        state, marks = advance(state, part, np.ones_like(part))
        assert all(one.first >= let_go for one in utterances(marks))
        assert state.needed_from >= let_go
        let_go = state.needed_from
    assert let_go > len(heard) - 1000
