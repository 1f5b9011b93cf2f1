"""What `bench.long_file` makes, and what it finds in a text; without a model."""

from __future__ import annotations

import numpy as np
import pytest

from bench.long_file import (
    LongFile,
    TimedWord,
    compare,
    drift,
    joined,
    long_file,
    near,
    pieces,
    words_said,
)
from service.lab.packing import Item
from service.lab.runs import Answer
from service.types import SAMPLE_RATE, Segment

PHRASES = ("one of them came", "nobody saw the cat", "we went home", "it was late that day")


def utterances(seconds: float = 8.0) -> list[Item]:
    pcm = np.ones(round(seconds * SAMPLE_RATE), np.int16)
    return [Item(f"{n}", (n + 1) * pcm, text, "en") for n, text in enumerate(PHRASES)]


@pytest.fixture
def made() -> LongFile:
    return long_file(utterances(), 60, (0.5, 1.5))


def said_as_put(made: LongFile, late_s: float = 0.0) -> list[Segment]:
    return [
        segment(one.item.text, one.first / SAMPLE_RATE + late_s, one.end / SAMPLE_RATE)
        for one in made.placed
    ]


def segment(text: str, start: float, end: float) -> Segment:
    return Segment(0, start, end, f" {text}", (), 0.0, 0.0, 1.0, 0.0)


def test_utterances_are_where_it_says(made: LongFile) -> None:
    assert 50 < len(made.pcm) / SAMPLE_RATE <= 60
    for number, one in enumerate(made.placed):
        assert one.item.text == PHRASES[number % 4]
        assert np.all(made.pcm[one.first : one.end] == number % 4 + 1)
    gaps = [b.first - a.end for a, b in zip(made.placed, made.placed[1:], strict=False)]
    assert all(0.5 <= gap / SAMPLE_RATE <= 1.5 for gap in gaps)


def test_pieces_are_the_file_cut_in_pauses(made: LongFile) -> None:
    cut = pieces(made)
    assert len(cut) == 2
    assert np.array_equal(np.concatenate([item.pcm for _, item in cut]), made.pcm)
    for start_s, item in cut:
        assert item.seconds <= 30
        assert np.array_equal(item.pcm, made.pcm[round(start_s * SAMPLE_RATE) :][: len(item.pcm)])
    assert all(item.pcm[-1] == 0 for _, item in cut[:-1])
    assert len(pieces(long_file(utterances(35), 100, (0.5, 1.5)))) == 2


def test_a_text_as_it_was_said_has_no_errors(made: LongFile) -> None:
    found = compare(made, words_said(said_as_put(made), "en"))
    assert found.wer == 0
    assert len(found.offsets) == len(made.placed)
    assert all(late == 0 for _, late in found.offsets)


def test_pieces_are_on_the_clock_of_the_file(made: LongFile) -> None:
    cut = pieces(made)
    answers = [
        Answer(
            "",
            tuple(
                segment(s.text.strip(), s.start - start_s, s.end - start_s)
                for s in said_as_put(made)
                if start_s <= s.start < start_s + item.seconds
            ),
        )
        for start_s, item in cut
    ]
    found = compare(made, joined(cut, answers))
    assert found.wer == 0
    assert all(abs(late) < 1e-9 for _, late in found.offsets)


def test_what_is_lost_and_doubled_has_its_place(made: LongFile) -> None:
    said = words_said(said_as_put(made), "en")
    doubled = [*said[:5], said[4], *said[5:]]
    found = compare(made, doubled)
    assert (found.num_wrong, len(found.lost_s), len(found.surplus_s)) == (0, 0, 1)
    assert found.surplus_s[0] == pytest.approx(said[4].time_s)
    found = compare(made, said[:6] + said[8:])
    assert found.lost_s == pytest.approx([word.time_s for word in said[6:8]])
    assert found.wer == pytest.approx(2 / len(said))
    swapped = [*said[:2], TimedWord("zebra", 0.0), *said[3:]]
    assert compare(made, swapped).num_wrong == 1


def test_near_a_seam_is_within_a_second_and_a_half() -> None:
    assert near([10.0, 11.6, 20.0, 33.0], [11.4, 33.5]) == 3
    assert near([10.0], []) == 0


def test_drift_is_what_offsets_grow_by() -> None:
    steady = [(100.0 * n, 0.2 + 0.01 * (-1) ** n) for n in range(36)]
    slope, error = drift(steady)
    assert abs(slope) < 2 * error
    growing = [(time, late + 0.5 * time / 3600) for time, late in steady]
    assert drift(growing)[0] == pytest.approx(0.5 + slope)
    assert drift(growing)[1] == pytest.approx(error)
