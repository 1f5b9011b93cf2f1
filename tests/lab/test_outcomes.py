from __future__ import annotations

import numpy as np
import pytest

from service.lab.outcomes import figures, outcome
from service.lab.packing import Item
from service.lab.runs import Answer, Run
from service.types import Fallback

TEN = "one of the men went to the house by sea"


def item(text: str, language: str = "en") -> Item:
    return Item("a.wav", np.zeros(16_000, np.int16), text, language)


def answer(text: str, *reasons: tuple[int, str]) -> Answer:
    again = tuple(Fallback(window, why, "fast", "dense") for window, why in reasons)
    return Answer(text, (), again)


def test_a_text_as_it_was_said_has_no_flags() -> None:
    assert flags(TEN, TEN) == set()


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        (TEN, " ".join(TEN.split()[:6]), set()),
        (TEN, " ".join(TEN.split()[:5]), {"broke_off"}),
        (TEN, "", {"broke_off"}),
        (TEN, " ".join(TEN.split()[5:]), {"skipped"}),
        (TEN, "one of sea", {"skipped"}),
        (TEN, "what is this thing for that you hold there", set()),
        ("one of the men", "", set()),
        (TEN, "no no no " * 20, {"looped"}),
        ("", "thank you", {"invented"}),
        ("", " ... ", set()),
    ],
)
def test_texts_go_wrong_in_ways(reference: str, text: str, expected: set[str]) -> None:
    assert flags(reference, text) == expected


def flags(reference: str, text: str) -> set[str]:
    found = outcome(item(reference), answer(text))
    names = ("looped", "broke_off", "skipped", "invented")
    return {name for name in names if getattr(found, name)}


def test_japanese_is_counted_by_character() -> None:
    assert outcome(item("客観的実在", "ja"), answer("客観的存在")).errors.words == 5


def test_attempts_are_counted_by_reason_and_windows_once() -> None:
    text = answer(TEN, (0, "doubt"), (0, "doubt"), (2, "repetition"))
    found = outcome(item(TEN), text)
    assert found.again == {"doubt": 2, "repetition": 1}
    assert found.windows_again == 2


def test_profiles_are_compared_on_the_same_words() -> None:
    items = [item(TEN), item(TEN), item("")]
    wrong = TEN.replace("men", "man")
    runs = {
        "dense": Run((answer(TEN), answer(wrong), answer("")), 3, 1.0),
        "fast": Run((answer(wrong), answer(wrong, (1, "doubt")), answer("oh")), 4, 1.0),
    }
    dense, fast = figures(items, runs)
    assert (dense.profile, fast.profile) == ("dense", "fast")
    assert dense.difference is None
    assert dense.wer.value == pytest.approx(1 / 20)
    assert fast.wer.value == pytest.approx(3 / 20)
    assert fast.difference is not None
    assert fast.difference.value == pytest.approx(2 / 20)
    assert fast.difference.low <= 0.1 <= fast.difference.high
    assert (fast.errors.substitutions, fast.errors.insertions, fast.errors.words) == (2, 1, 20)
    assert (fast.windows_again, fast.num_windows, fast.again) == (1, 4, {"doubt": 1})
    assert (fast.looped, fast.broke_off, fast.invented) == (0, 0, 1)
