from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from service.explain.explanation import Pane, explain
from service.explain.fates import DROPPED, owners_of
from service.explain.rows import (
    ALONE,
    GONE,
    HIGH,
    LOW,
    MERGED,
    Row,
    blocks_of,
    levels_of,
    place,
    rows_of,
    ticks_of,
)
from service.types import Kept

from .made import (
    NUM_FRAMES,
    PAIRS,
    halves,
    kept_of,
    one_window,
    pairs,
    reading,
    transcript,
    window,
)


def pane_of(seconds: float, kept: Kept | None = None, start_s: float = 0.0) -> Pane:
    readings = [reading(window(start_s, seconds), kept or pairs())]
    return explain("a", PAIRS, transcript(readings=readings), transcript()).panes[0]


@pytest.mark.parametrize("seconds", [0.02, 0.5, 3.9, 7.55, 12, 23.3, 28.4, 29.99, 30])
def test_rows_hold_each_frame_once(seconds: float) -> None:
    rows = rows_of(pane_of(seconds))
    assert rows[0].first == 0
    assert rows[-1].last == NUM_FRAMES
    assert all(row.last == following.first for row, following in pairwise(rows))
    assert all(len(row) >= 100 for row in rows)
    assert [row.padding for row in rows[:-1]] == [False] * (len(rows) - 1)
    sounding = [row for row in rows if not row.padding]
    assert sounding[-1].last >= seconds * 50
    assert max(map(len, sounding)) <= 500


MIXED = kept_of([0, 1, 2, 10, 30, 700], [1, 1, 8, 15, 1, 800])


@pytest.mark.parametrize("kept", [pairs(), halves(), MIXED], ids=["pairs", "halves", "mixed"])
def test_blocks_hold_each_frame_once_with_its_fate(kept: Kept) -> None:
    owners = owners_of(kept)
    drawn = []
    for row in rows_of(pane_of(12, kept)):
        blocks = blocks_of(kept, row)
        assert (blocks[0].first, blocks[-1].last) == (0, len(row))
        assert all(block.last == following.first for block, following in pairwise(blocks))
        drawn += [block.fate for block in blocks for _ in range(block.first, block.last)]
    expected = [
        GONE if owner == DROPPED else MERGED if kept.sizes[owner] > 1 else ALONE for owner in owners
    ]
    assert drawn == expected


def test_states_side_by_side_are_blocks_of_their_own() -> None:
    blocks = blocks_of(pairs(), Row(0, 10))
    assert [(block.first, block.last) for block in blocks] == [
        (at, at + 2) for at in range(0, 10, 2)
    ]


def test_attention_is_drawn_on_a_scale_around_the_average_frame() -> None:
    kept = kept_of([0], [1])
    importance = np.ones(NUM_FRAMES, np.float32)
    importance[:4] = (0, 100, 2, 0.5)
    level = levels_of(replace(kept, importance=importance / importance.mean()), Row(0, 6))
    middle = -LOW / (HIGH - LOW)
    assert level[:2].tolist() == [0, 1]
    off = np.log2(importance.mean())  # the average is not quite 1
    assert level[2:5] * (HIGH - LOW) + LOW == pytest.approx([1 - off, -1 - off, -off], abs=1e-5)
    assert level[5] == pytest.approx(middle, abs=0.02)


def test_ticks_are_round_times_of_the_recording() -> None:
    pane = pane_of(12, start_s=61.3)
    first = ticks_of(pane, rows_of(pane)[0])
    assert [tick.seconds for tick in first[:3]] == [61.5, 62, 62.5]
    assert first[0].at == pytest.approx(0.2 / 6)
    for row in rows_of(pane):
        ticks = ticks_of(pane, row)
        assert 3 <= len(ticks) <= 17
        assert all(0 <= tick.at <= 1 for tick in ticks)


def test_every_word_stands_once_and_covers_no_other() -> None:
    spoken = [(" word", 0.06 * i, 0.06 * i + 0.05) for i in range(200)]
    pane = one_window(spoken, spoken).panes[0]
    chars = 60.0
    seen = []
    for row in rows_of(pane):
        placed = place(pane.words, pane, row, chars)
        seen += [one.word for one in placed]
        for lane in {one.lane for one in placed}:
            starts = [one.at for one in placed if one.lane == lane]
            apart = np.diff(starts)
            assert (apart >= 5 / chars - 1e-9).all()
        assert all(0 <= one.at <= 1 - 5 / chars for one in placed)
    assert seen == list(pane.words)
    assert len(seen) == 200
