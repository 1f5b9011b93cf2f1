from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.text.wer import align, count_errors, word_errors, words_of

WORDS = st.lists(st.sampled_from(["one", "two", "three"]), max_size=6)


def by_the_book(a: list[str], b: list[str]) -> int:
    """Levenshtein's distance, as its recursion says it."""
    if not a or not b:
        return len(a) + len(b)
    kept = by_the_book(a[1:], b[1:]) + (a[0] != b[0])
    return kept if a[0] == b[0] else min(kept, by_the_book(a[1:], b) + 1, by_the_book(a, b[1:]) + 1)


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("Mister Brown's GREY coat!", "mister brown is gray coat"),
        ("Four, two; oh one!", "4201"),
        ("twenty one pounds", "£21"),
        ("(laughs) It's fine", "it is fine"),
    ],
)
def test_english_is_compared_as_whisper_does_it(written: str, compared: str) -> None:
    assert " ".join(words_of(written)) == compared


# Its authors leave a file open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_words_are_those_of_the_reference_implementation() -> None:
    normalisers = pytest.importorskip("whisper.normalizers")
    english, basic = normalisers.EnglishTextNormalizer(), normalisers.BasicTextNormalizer()
    for text in (
        "MISTER QUILTER'S FAVOURITE COLOURS, he said; 2,000 of them at $3.50 (about) 10th!",
        "Let's see: I've been there, you won't... twenty-five hundred and o'clock",
    ):
        assert words_of(text) == english(text).split()
    german = "Größe, Straße & Öl - 3,5 Prozent!"
    assert words_of(german, "de") == basic(german).split()


def test_other_languages_keep_their_letters_and_japanese_is_by_character() -> None:
    assert words_of("Größe, Straße!", "de") == ["größe", "straße"]
    assert words_of("客観的、実在。", "ja") == list("客観的実在")


@given(WORDS, WORDS)
def test_errors_are_the_cheapest(a: list[str], b: list[str]) -> None:
    assert word_errors(a, b) == word_errors(b, a) == by_the_book(a, b)


@given(WORDS, WORDS)
def test_an_alignment_is_as_cheap_and_has_every_word_once_in_order(
    a: list[str], b: list[str]
) -> None:
    pairs = align(a, b)
    assert [i for i, _ in pairs if i is not None] == list(range(len(a)))
    assert [j for _, j in pairs if j is not None] == list(range(len(b)))
    wrong = sum(i is None or j is None or a[i] != b[j] for i, j in pairs)
    assert wrong == word_errors(a, b) == count_errors(a, b).total


def test_errors_have_a_kind() -> None:
    errors = count_errors("a b c d e".split(), "x y a x c e".split())  # noqa: SIM905 - as spoken
    assert (errors.substitutions, errors.deletions, errors.insertions) == (1, 1, 2)
    assert (errors.words, errors.total) == (5, 4)
