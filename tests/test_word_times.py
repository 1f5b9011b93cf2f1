"""Word times of the embedded model, from file to answer."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bench.long_file import Recording, match, recording, transcribe
from service.lab.domains import Places, recorded_digits
from service.lab.speech_set import SpeechSet
from service.lab.times import measure, timed_digits
from service.model.load import load_model
from service.profiles import BUILT_IN, Profile
from tests.test_embedded import CORPUS, needs_corpus

pytestmark = pytest.mark.model

HALF = Profile("half", layer=2, sparsity=0.5, selection="stride")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> SpeechSet:
    return recorded_digits(Places(CORPUS, tmp_path_factory.mktemp("data"), strings=0))


@needs_corpus
@pytest.mark.parametrize("profile", [BUILT_IN["dense"], HALF], ids=["dense", "half"])
def test_words_are_near_where_they_were_said(digits: SpeechSet, profile: Profile) -> None:
    model = load_model("embedded", device="cpu")
    figures = measure(model, timed_digits(digits, 16), profile).summary()
    assert figures["read"] > 0.7 * figures["words"]
    assert figures["start median"] <= 0.1
    assert figures["end median"] <= 0.12
    assert figures["start mean"] <= 0.15  # what it reaches, and why not 0.1: bench/results.md


@needs_corpus
def test_times_hold_over_several_windows(digits: SpeechSet) -> None:
    made: Recording = recording(digits, 150, pause=13)
    transcript = transcribe(made.samples, "dense")
    words = [word for segment in transcript.segments for word in segment.words]
    for segment in transcript.segments:
        assert "".join(word.text for word in segment.words) == segment.text
        assert all(segment.start <= w.start <= w.end <= segment.end for w in segment.words)
    assert all(before.end <= after.start for before, after in pairwise(words))
    assert words[-1].end <= transcript.duration
    pairs = match(made.spans, [(word.start, word.end) for word in words])
    assert len(pairs) > 0.8 * len(made.spans)
    errors = np.array([words[j].start - made.spans[i][0] for i, j in pairs])
    late = np.array([made.spans[i][0] > 75 for i, _ in pairs])
    # No drift: the second half is no later than the first, beyond what the errors' spread allows.
    assert abs(np.median(errors[late]) - np.median(errors[~late])) < 0.05


def test_what_is_nearest_is_matched_once() -> None:
    said = [(1.0, 1.5), (2.0, 2.5), (3.0, 3.5)]
    assert match(said, [(1.1, 1.2), (1.3, 1.6), (3.4, 3.6), (9.0, 9.5)]) == [(0, 0), (2, 2)]
