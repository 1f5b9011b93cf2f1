"""Which hypotheses are decoded again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.text.guard import is_silent, retry_reason
from service.types import Hypothesis

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


def test_silence_is_not_worth_another_try() -> None:
    silent = replace(GOOD, no_speech_prob=0.9, avg_logprob=-1.5, ended=False)
    assert retry_reason(silent, REPETITIVE) is None


@pytest.mark.parametrize(
    ("no_speech_prob", "avg_logprob", "silent"),
    [(0.61, -1.01, True), (0.6, -1.01, False), (0.61, -1.0, False), (0.1, -0.1, False)],
)
def test_silence_needs_both_no_speech_and_doubt(
    no_speech_prob: float, avg_logprob: float, silent: bool
) -> None:
    hypothesis = replace(GOOD, no_speech_prob=no_speech_prob, avg_logprob=avg_logprob)
    assert is_silent(hypothesis) is silent
