from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.lab.evaluate import (
    Score,
    Utterance,
    connected_digits,
    score,
    transcribe,
    with_pauses,
)
from service.lab.recipe import Material
from service.lab.wer import word_errors, words_of
from service.model.fake import FakeModel
from service.profiles import BUILT_IN
from service.types import SAMPLE_RATE

WORDS = st.lists(st.sampled_from(["one", "two", "three"]), max_size=8)


def test_each_digit_is_a_word_as_spoken_or_as_written() -> None:
    assert words_of("Four, two; oh one!") == ["4", "2", "0", "1"]
    assert words_of("4201") == words_of("four two zero one")


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [("one two", "one two", 0), ("one two", "one", 1), ("one", "one two", 1), ("one", "two", 1)],
)
def test_errors_are_counted(reference: str, hypothesis: str, errors: int) -> None:
    assert word_errors(reference.split(), hypothesis.split()) == errors


@given(WORDS, WORDS)
def test_errors_are_a_distance(a: list[str], b: list[str]) -> None:
    errors = word_errors(a, b)
    assert errors == word_errors(b, a)
    assert (errors == 0) == (a == b)
    assert abs(len(a) - len(b)) <= errors <= max(len(a), len(b))


def test_strings_are_of_one_seed_and_inside_a_window(speech: Material) -> None:
    strings = connected_digits(speech.digits, 20, seed=4)
    assert [u.text for u in strings] == [
        u.text for u in connected_digits(speech.digits, 20, seed=4)
    ]
    assert all(3 <= len(u.text.split()) <= 10 for u in strings)
    assert all(len(u.samples) <= 30 * SAMPLE_RATE for u in strings)


@pytest.mark.parametrize("seconds", [2, 9, 29])
def test_strings_follow_each_other_after_pauses_as_they_fit(seconds: int) -> None:
    strings = [
        Utterance(np.full(seconds * SAMPLE_RATE, n, np.float32), str(n)) for n in range(1, 12)
    ]
    paused = with_pauses(strings)
    assert " ".join(u.text for u in paused) == " ".join(u.text for u in strings)
    assert all(len(u.samples) <= 30 * SAMPLE_RATE for u in paused)
    for each in paused:
        said = each.text.split()
        assert len(said) <= 4
        assert set(each.samples.tolist()) - {0.0} == {float(n) for n in said}
        silent_s = np.count_nonzero(each.samples == 0) / SAMPLE_RATE
        assert 0.6 * (len(said) - 1) <= silent_s + 1e-3
        assert silent_s <= 1.5 * (len(said) - 1)
    assert max(len(u.text.split()) for u in paused) == {2: 4, 9: 3, 29: 1}[seconds]


def test_a_score_counts_the_errors_of_all_utterances(speech: Material) -> None:
    model = FakeModel()
    strings = connected_digits(speech.digits, 5)
    said = list(transcribe(model, [u.samples for u in strings], BUILT_IN["dense"], batch=2))
    right = [Utterance(u.samples, text) for u, text in zip(strings, said, strict=True)]
    assert score(model, right, BUILT_IN["dense"]).errors == 0
    wrong = [*right[:-1], Utterance(right[-1].samples, right[-1].text + " surplus")]
    assert score(model, wrong, BUILT_IN["dense"]).errors == 1


def test_words_where_nothing_was_said_are_errors() -> None:
    assert Score(errors=2, words=0, utterances=1).wer == 1.0
    assert Score(errors=0, words=0, utterances=1).wer == 0.0
