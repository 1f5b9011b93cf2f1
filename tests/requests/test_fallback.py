"""Which attempt follows which, and which one is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.profiles import BUILT_IN, Profile
from service.requests.coverage import Coverage
from service.requests.fallback import Attempt, Outcome, Verdict, best_of, judge
from service.types import TEMPERATURES, DecodeOptions, Thresholds
from tests.requests.test_guard import GOOD, REPETITIVE

FAST, DENSE = BUILT_IN["fast"], BUILT_IN["dense"]
FINE = Outcome(GOOD, " one two three", loud=True)
LOOP = replace(FINE, text=REPETITIVE)
NOTHING = replace(FINE, text="")
DOUBTFUL = replace(FINE, hypothesis=replace(GOOD, avg_logprob=-1.5))
ENDLESS = replace(FINE, hypothesis=replace(GOOD, ended=False))
GREEDY = DecodeOptions("en", beam_size=4, seed=7)


def verdict(attempt: Attempt, outcome: Outcome, **thresholds: float) -> Verdict:
    return judge(attempt, outcome, TEMPERATURES, Thresholds(**thresholds))


def chain(profile: Profile, outcome: Outcome, options: DecodeOptions = GREEDY) -> list[Attempt]:
    """Every attempt at a window that always comes to the same."""
    attempts = [Attempt(0, profile, options)]
    while (following := verdict(attempts[-1], outcome).following) is not None:
        attempts.append(following)
    return attempts


def test_what_is_fine_stands() -> None:
    assert verdict(Attempt(0, FAST, GREEDY), FINE) == Verdict()


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (LOOP, "repetition"),
        (DOUBTFUL, "doubt"),
        (NOTHING, "empty"),
        (replace(FINE, hypothesis=replace(GOOD, ended=False)), "endless"),
    ],
)
def test_each_reason_is_named(outcome: Outcome, reason: str) -> None:
    found = verdict(Attempt(0, FAST, GREEDY), outcome)
    assert found.reason == reason
    assert found.following is not None


@pytest.mark.parametrize("outcome", [LOOP, ENDLESS])
def test_every_frame_then_rising_temperatures(outcome: Outcome) -> None:
    attempts = chain(FAST, outcome)
    assert [(a.profile, a.options.temperature) for a in attempts] == [
        (FAST, 0.0),
        *((DENSE, temperature) for temperature in TEMPERATURES),
    ]
    assert {replace(a.options, temperature=0.0) for a in attempts} == {GREEDY}


def test_a_temperature_that_was_asked_for_is_where_it_begins() -> None:
    attempts = chain(DENSE, LOOP, replace(GREEDY, temperature=0.5))
    assert [a.options.temperature for a in attempts] == [0.5, 0.6, 0.8, 1.0]


PROMPTED = replace(GREEDY, prompt=(1, 2, 3))


@pytest.mark.parametrize("outcome", [LOOP, ENDLESS])
def test_a_prompt_is_left_out_before_anything_is_sampled(outcome: Outcome) -> None:
    attempts = chain(FAST, outcome, PROMPTED)
    prompted = [bool(a.options.prompt) for a in attempts]
    assert prompted == [True, True] + [False] * len(TEMPERATURES)
    assert [a.options.temperature for a in attempts[2:]] == list(TEMPERATURES)
    assert {replace(a.options, prompt=(), temperature=0.0) for a in attempts} == {GREEDY}


@pytest.mark.parametrize(("no_speech_prob", "avg_logprob"), [(0.1, -0.5), (0.7, -0.5), (0.7, -1.4)])
def test_no_text_after_a_prompt_is_tried_without_it(
    no_speech_prob: float, avg_logprob: float
) -> None:
    said = replace(GOOD, no_speech_prob=no_speech_prob, avg_logprob=avg_logprob)
    empty = replace(NOTHING, hypothesis=said)
    found = verdict(Attempt(0, DENSE, PROMPTED), empty)
    assert found == Verdict("empty", Attempt(1, DENSE, GREEDY))
    assert verdict(Attempt(1, DENSE, GREEDY), empty).following is None


def test_a_quiet_window_without_text_is_not_tried_without_its_prompt() -> None:
    assert verdict(Attempt(0, DENSE, PROMPTED), replace(NOTHING, loud=False)) == Verdict()


def test_no_text_is_tried_with_every_frame_and_no_further() -> None:
    assert [a.profile.name for a in chain(FAST, NOTHING)] == ["fast", "dense"]


def test_no_text_stands_where_nothing_is_heard() -> None:
    quiet = replace(NOTHING, loud=False)
    unheard = replace(NOTHING, hypothesis=replace(GOOD, no_speech_prob=0.61))
    for outcome in (quiet, unheard):
        assert verdict(Attempt(0, FAST, GREEDY), outcome) == Verdict()


def test_a_silent_window_is_not_tried_again() -> None:
    silent = replace(LOOP, silent=True)
    assert verdict(Attempt(0, FAST, GREEDY), silent) == Verdict()


def test_a_language_is_asked_for_once() -> None:
    asked = Attempt(0, FAST, replace(GREEDY, language_only=True))
    assert verdict(asked, NOTHING) == Verdict()


@pytest.mark.parametrize(
    ("thresholds", "outcome"),
    [
        ({"compression_ratio": 100.0}, LOOP),
        ({"logprob": -1.6}, DOUBTFUL),
        ({"no_speech": 0.05}, NOTHING),
    ],
)
def test_a_request_has_thresholds_of_its_own(
    thresholds: dict[str, float], outcome: Outcome
) -> None:
    attempt = Attempt(0, DENSE, GREEDY)
    assert verdict(attempt, outcome).reason is not None
    assert verdict(attempt, outcome, **thresholds) == Verdict()


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.01, 0.99), st.floats(0, 1))
def test_attempts_come_to_an_end(temperatures: list[float], sparsity: float, asked: float) -> None:
    attempt: Attempt | None = Attempt(
        0, replace(FAST, sparsity=sparsity), replace(GREEDY, temperature=asked)
    )
    count = 0
    while attempt is not None:
        count += 1
        attempt = judge(attempt, LOOP, temperatures, Thresholds()).following
    assert count <= 2 + len(temperatures)


def of(avg_logprob: float, text: str = " one", ended: bool = True, left_s: float = 0.0) -> Outcome:
    said = replace(GOOD, avg_logprob=avg_logprob, ended=ended)
    return Outcome(said, text, loud=True, coverage=Coverage(left_s=left_s))


def best(*outcomes: Outcome) -> int:
    return best_of(outcomes, Thresholds())


def test_the_likeliest_of_those_that_ended_with_text_is_kept() -> None:
    cut, empty = of(-0.1, ended=False), of(-0.2, text="")
    assert best(cut, of(-3.0), of(-2.0), empty) == 2
    assert best(empty, cut) == 1
    fewer = replace(of(-1.0), hypothesis=replace(GOOD, avg_logprob=-1.0, kept_frames=100))
    assert best(fewer, of(-1.0), of(-1.0)) == 1


def test_one_that_leaves_out_speech_is_kept_only_where_all_do() -> None:
    assert best(of(-0.1, left_s=20.0), of(-0.9, left_s=1.0)) == 1
    assert best(of(-0.9, left_s=1.9), of(-0.1, left_s=0.0), of(-0.2, left_s=0.0)) == 1
    assert best(of(-0.9, left_s=20.0), of(-0.2, left_s=20.5)) == 1


def test_one_that_repeats_itself_is_kept_only_where_all_do() -> None:
    assert best(of(-0.1, REPETITIVE), of(-0.9, left_s=9.0)) == 1
    assert best(of(-0.9, REPETITIVE), of(-0.1, REPETITIVE)) == 1


@pytest.mark.parametrize(
    "outcome", [replace(FINE, coverage=Coverage(skipped_s=20.0)), DOUBTFUL], ids=["skips", "doubt"]
)
@pytest.mark.parametrize(
    ("profile", "followed"), [(FAST, [("dense", 0.0), ("dense", 0.2)]), (DENSE, [("dense", 0.2)])]
)
def test_a_text_that_skips_or_is_doubtful_is_sampled_once(
    profile: Profile, followed: list[tuple[str, float]], outcome: Outcome
) -> None:
    attempts = chain(profile, outcome)[1:]
    assert [(a.profile.name, a.options.temperature) for a in attempts] == followed
