"""Which hypotheses are decoded again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.requests.coverage import Coverage
from service.requests.guard import lost_reason, retry_reason
from service.text.silence import is_silent
from service.types import Hypothesis, Thresholds

GOOD = Hypothesis(
    tokens=(1, 2),
    avg_logprob=-0.2,
    no_speech_prob=0.1,
    temperature=0.0,
    language="en",
    ended=True,
    kept_frames=600,
    total_frames=1500,
)
REPETITIVE = " seven" * 60


def test_a_good_hypothesis_stands() -> None:
    assert retry_reason(GOOD, " one two three") is None


def test_repetition_is_a_reason() -> None:
    assert retry_reason(GOOD, REPETITIVE) == "repetition"


def test_text_that_the_token_limit_cut_is_endless() -> None:
    assert retry_reason(replace(GOOD, ended=False), " one two three") == "endless"


def test_repetition_says_more_than_endless() -> None:
    assert retry_reason(replace(GOOD, ended=False), REPETITIVE) == "repetition"


@pytest.mark.parametrize(
    ("no_speech_prob", "avg_logprob", "silent"),
    [(0.61, -1.01, True), (0.6, -1.01, False), (0.61, -1.0, False), (0.1, -0.1, False)],
)
def test_silence_needs_both_no_speech_and_doubt(
    no_speech_prob: float, avg_logprob: float, silent: bool
) -> None:
    hypothesis = replace(GOOD, no_speech_prob=no_speech_prob, avg_logprob=avg_logprob)
    assert is_silent(hypothesis) is silent


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ended": False}, " I'm going to put the chicken in the oven."),
        ({"avg_logprob": -0.26}, " Ah!"),
        ({"no_speech_prob": 0.31}, " Thank you."),
        ({}, REPETITIVE),
    ],
)
def test_where_nobody_was_heard_less_doubt_is_enough(change: dict[str, Any], text: str) -> None:
    said = replace(GOOD, **change)
    assert is_silent(said, text=text, heard=False)
    assert not is_silent(said, text=text, heard=True)
    assert not is_silent(said, Thresholds(no_speech=1.0), text, heard=False)


def test_where_nobody_was_heard_a_sure_text_stands() -> None:
    assert not is_silent(GOOD, text=" Happy birthday to you", heard=False)


@pytest.mark.parametrize(
    ("coverage", "sparse", "reason"),
    [
        (Coverage(skipped_s=1.9, left_s=7.9), True, None),
        (Coverage(skipped_s=2.0), True, "skipped"),
        (Coverage(skipped_s=2.0), False, "skipped"),
        (Coverage(left_s=8.0), True, "skipped"),
        (Coverage(left_s=20.0), False, None),  # gone on with
    ],
)
def test_speech_without_text_is_a_reason(
    coverage: Coverage, sparse: bool, reason: str | None
) -> None:
    assert lost_reason(coverage, " one two three", sparse) == reason


def test_a_sparse_text_that_begins_again_is_a_reason_and_a_dense_one_is_a_refrain() -> None:
    text = " Without a word Peter got up and lit his lantern."
    again = text + " The groom's three blacks went like the wind." + text
    assert lost_reason(Coverage(), again, sparse=True) == "restart"
    assert lost_reason(Coverage(), again, sparse=False) is None
    assert lost_reason(Coverage(), text, sparse=True) is None
