from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ConfigError
from service.lab.sentences import can_be_read, draw_sentence, number, plain, read_books
from service.lab.targets import CHARACTERS


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Don't let him \u2014 EVER!", "don't let him ever"),
        ("'Tis the boys' house", "tis the boys house"),
        ("it\u2019s A & B", "it's a and b"),
        ("", ""),
    ],
)
def test_transcripts_are_plain(written: str, read: str) -> None:
    assert plain(written) == read


@given(st.text())
def test_plain_text_has_ctc_labels_only_and_stays_as_it_is(text: str) -> None:
    once = plain(text)
    assert set(once) <= set(CHARACTERS)
    assert plain(once) == once


@pytest.mark.parametrize("line", ["In 1894 it rained.", "Mr. Holmes came.", "caf\u00e9", "a <b>"])
def test_what_would_be_said_otherwise_than_written_is_left_out(line: str) -> None:
    assert not can_be_read(line)
    assert can_be_read("It rained; he came.")


def test_one_book_is_for_the_test_split_alone(tmp_path: Path) -> None:
    (tmp_path / "wizard-of-oz.txt").write_text("The cyclone came.\nIn 1900 it ended.\nOh!\n")
    with pytest.raises(ConfigError, match="train split"):
        read_books(tmp_path, "train")
    (tmp_path / "other.txt").write_text("It was dark.\n" + "word " * 40)
    assert read_books(tmp_path, "train") == ["It was dark."]
    assert read_books(tmp_path, "test") == ["The cyclone came."]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (256, "two hundred and fifty six"),
        (12_007, "twelve thousand seven"),
        (999_999, "nine hundred and ninety nine thousand nine hundred and ninety nine"),
    ],
)
def test_numbers_are_read_aloud(value: int, words: str) -> None:
    assert number(value) == words


def test_prompts_say_their_transcripts_and_hold_nothing_an_engine_stumbles_at() -> None:
    draw, seen = random.Random(1), set()
    for _ in range(600):
        text, prompt = draw_sentence(draw, ["He said: \u201cDon't go (now)!\u201d"])
        assert text == plain(prompt)
        assert text
        assert not set(prompt) & set('"<>&()\\')
        seen.add(text.split()[0])
    assert {"he", "the"} <= seen
    assert len(seen) > 20
