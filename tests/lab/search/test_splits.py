from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import ConfigError
from service.lab.manifest import Row
from service.lab.search.splits import parted

ROWS = [Row(Path(f"{n}.wav"), f"{n}.wav", "word", "en", f"speaker {n % 5}") for n in range(20)]


def by_split(rows: list[Row]) -> dict[str, set[str]]:
    return {split: {r.name for r in rows if r.split == split} for split in ("train", "test")}


def test_no_speaker_is_on_both_sides() -> None:
    (rows,) = parted({"mine": ROWS}, 0).values()
    sides = {split: {r.speaker for r in rows if r.split == split} for split in ("train", "test")}
    assert not sides["train"] & sides["test"]
    assert sorted(map(len, sides.values())) == [2, 3]
    assert [replace(row, split="") for row in rows] == ROWS


def test_recordings_are_parted_where_speakers_are_not_known() -> None:
    unknown = [replace(row, speaker="") for row in ROWS]
    (rows,) = parted({"mine": unknown}, 0).values()
    assert {len(side) for side in by_split(rows).values()} == {10}
    (again,) = parted({"mine": unknown[::-1]}, 0).values()
    assert by_split(again) == by_split(rows)
    (other,) = parted({"mine": unknown}, 1).values()
    assert by_split(other) != by_split(rows)


def test_splits_that_are_there_stay() -> None:
    given = [replace(row, split="test") for row in ROWS]
    assert parted({"mine": given}, 0) == {"mine": given}
    mixed = given[:10] + ROWS[10:]
    (rows,) = parted({"mine": mixed}, 0).values()
    assert rows[:10] == given[:10]
    assert {row.split for row in rows[10:]} == {"train", "test"}


def test_one_recording_cannot_be_parted() -> None:
    with pytest.raises(ConfigError, match="mine: one recording cannot be parted"):
        parted({"mine": ROWS[:1]}, 0)
