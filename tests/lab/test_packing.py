from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.lab.packing import Item, evenly, packed
from service.types import SAMPLE_RATE

# (seconds, speaker)
UTTERANCES = st.lists(
    st.tuples(st.integers(1, 32), st.sampled_from(["x", "y"])), min_size=1, max_size=12
)


def items_of(lengths: list[tuple[int, str]]) -> list[Item]:
    """Each says its own number, in sound too."""
    return [
        Item(f"{n}", np.full(seconds * SAMPLE_RATE, n, np.int16), str(n), "en", speaker)
        for n, (seconds, speaker) in enumerate(lengths, start=1)
    ]


@settings(deadline=None, max_examples=20)
@given(UTTERANCES)
def test_windows_are_full_of_one_speaker_in_order(lengths: list[tuple[int, str]]) -> None:
    items = items_of(lengths)
    windows = packed(items)
    for window in windows:
        said = [int(word) for word in window.text.split()]
        assert 18 <= window.seconds <= 30
        assert {items[n - 1].speaker for n in said} == {window.speaker}
        assert said == sorted(said)
        heard = window.pcm[np.flatnonzero(window.pcm)]
        first = np.flatnonzero(np.diff(heard, prepend=0))
        assert heard[first].tolist() == said
        silent = np.count_nonzero(window.pcm == 0)
        assert silent == round(0.3 * SAMPLE_RATE) * (len(said) - 1)
    every = [word for window in windows for word in window.text.split()]
    assert len(every) == len(set(every))


def test_what_fills_no_window_is_left_out() -> None:
    lengths = [(10, "x"), (25, "x"), (31, "x"), (17, "x"), (12, "x"), (9, "y"), (8, "y")]
    assert [window.text for window in packed(items_of(lengths))] == ["2", "4 5"]
    assert packed(items_of([(9, "y"), (9, "y")]))[0].text == "1 2"


def test_languages_of_one_voice_are_kept_apart() -> None:
    first, second = items_of([(18, ""), (10, "")])
    other = Item(second.name, second.pcm, second.text, "de", "")
    assert [window.text for window in packed([first, other])] == ["1"]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 99])
def test_a_limit_takes_from_every_speaker_alike(count: int) -> None:
    items = items_of([(1, "x")] * 4 + [(1, "y")] + [(1, "z")] * 2)
    chosen = evenly(items, count)
    assert len(chosen) == len({item.name for item in chosen}) == min(count, 7)
    taken = {voice: sum(item.speaker == voice for item in chosen) for voice in "xyz"}
    assert taken["y"] <= 1
    assert taken["x"] - taken["z"] <= 1 or taken["z"] == 2
    assert chosen == evenly(items, count)


def test_a_limit_spreads_over_what_a_speaker_says() -> None:
    assert [i.text for i in evenly(items_of([(1, "x")] * 9), 3)] == ["1", "4", "7"]
