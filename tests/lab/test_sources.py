from __future__ import annotations

import numpy as np
import pytest

from service.lab.recipe import Material
from service.lab.sources import NOWHERE, DigitStrings, Phrase, Sentences
from service.types import SAMPLE_RATE


def test_every_digit_is_a_phrase_where_it_is_said(speech: Material) -> None:
    source = DigitStrings(speech.digits, speech.synthetic)
    for seed in range(30):
        said = source.draw(np.random.default_rng(seed), 2, 5)
        assert 2 <= len(said.phrases) <= 5
        times = [time for phrase in said.phrases for time in (phrase.start, phrase.end)]
        assert times == sorted(times)
        assert times[-1] <= len(said.samples) / SAMPLE_RATE + 1e-6
        assert all(p.spans == ((p.start, p.end),) for p in said.phrases)


def test_a_sentence_is_one_phrase_from_end_to_end(speech: Material) -> None:
    source = Sentences([(speech.synthetic, 0.5, None), (speech.digits, 0.5, None)])
    for seed in range(30):
        said = source.draw(np.random.default_rng(seed), 1, 9)
        (phrase,) = said.phrases
        assert phrase.start == 0
        assert phrase.end == pytest.approx(len(said.samples) / SAMPLE_RATE)
        assert phrase.spans == (NOWHERE,) * len(phrase.words)


@pytest.mark.parametrize(("least", "most", "sizes"), [(2, 3, {2, 3}), (3, 9, {3}), (1, 1, {1})])
def test_sentences_are_of_the_length_asked_for(
    speech: Material, least: int, most: int, sizes: set[int]
) -> None:
    source = Sentences([(speech.synthetic, 1.0, None)])
    drawn = (source.draw(np.random.default_rng(seed), least, most) for seed in range(40))
    assert {len(said.phrases[0].words) for said in drawn} == sizes


def test_a_set_without_the_length_gives_its_nearest(speech: Material) -> None:
    source = Sentences([(speech.synthetic, 1.0, None)])
    said = source.draw(np.random.default_rng(0), 20, 30)
    assert len(said.phrases[0].words) == 3


def test_known_words_keep_their_places_at_another_speed(speech: Material) -> None:
    lengths = speech.synthetic.lengths / SAMPLE_RATE
    texts = speech.synthetic.texts
    spans = [
        [(i * s / len(t.split()), (i + 1) * s / len(t.split())) for i in range(len(t.split()))]
        for s, t in zip(lengths, texts, strict=True)
    ]
    said = Sentences([(speech.synthetic, 1.0, spans)]).draw(np.random.default_rng(3), 2, 3)
    (phrase,) = said.phrases
    assert phrase.spans[-1][1] == pytest.approx(phrase.end, abs=0.01)


def test_a_shifted_phrase_leaves_unknown_words_unknown() -> None:
    phrase = Phrase(("a", "b"), 1.0, 2.0, ((1.0, 1.5), NOWHERE)).shifted(0.5)
    assert phrase == Phrase(("a", "b"), 1.5, 2.5, ((1.5, 2.0), NOWHERE))
