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


@pytest.mark.parametrize(
    ("reference", "text", "flags"),
    [
        (TEN, TEN, (False, False, False)),
        (TEN, " ".join(TEN.split()[:6]), (False, False, False)),
        (TEN, " ".join(TEN.split()[:5]), (False, True, False)),
        (TEN, "", (False, True, False)),
        ("one of the men", "", (False, False, False)),
        (TEN, "no no no " * 20, (True, False, False)),
        ("", "thank you", (False, False, True)),
        ("", " ... ", (False, False, False)),
    ],
)
def test_texts_go_wrong_in_ways(reference: str, text: str, flags: tuple[bool, bool, bool]) -> None:
    found = outcome(item(reference), answer(text))
    assert (found.looped, found.broke_off, found.invented) == flags


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
