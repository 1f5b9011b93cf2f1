"""Recordings to choose on and others to report on: no speaker is heard on both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from service.errors import ConfigError
from service.lab.manifest import Row
from service.lab.search.state import digest

TRAIN, TEST = "train", "test"


def parted(folders: Mapping[str, Sequence[Row]], seed: int) -> dict[str, list[Row]]:
    """With a split for each row that has none: half of them to choose on, half to report on.

    Whole speakers where there are several, else every other recording, both in an order drawn from
    the seed. Raises ConfigError where there is only one to part.
    """
    return {name: _parted(name, rows, seed) for name, rows in folders.items()}


def _parted(name: str, rows: Sequence[Row], seed: int) -> list[Row]:
    open_rows = [row for row in rows if not row.split]
    if not open_rows:
        return list(rows)
    several = len({row.speaker for row in open_rows}) > 1 and all(r.speaker for r in open_rows)
    # A speaker, or a recording where there is one speaker only or nobody knows.
    units = {row: row.speaker if several else row.name for row in open_rows}
    drawn = sorted(set(units.values()), key=lambda unit: digest(str(seed), unit))
    if len(drawn) < 2:
        raise ConfigError(
            f"{name}: one recording cannot be parted into what is chosen on and what is reported "
            "on; list more, or give them a column split with train and test"
        )
    sides = {unit: (TRAIN, TEST)[number % 2] for number, unit in enumerate(drawn)}
    return [row if row.split else replace(row, split=sides[units[row]]) for row in rows]
