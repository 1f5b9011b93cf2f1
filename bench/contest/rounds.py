"""Sides take turns on blocks of clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.contest.contestant import Contestant, Entry, Turn
from bench.contest.material import Clips
from bench.contest.table import Row, Took, rows_of
from bench.progress import Planned, Progress, say

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Block:
    """Clips of one kind, so many at once. `first`: of the kind's blocks, and so the one for
    sides that take one clip at a time whatever is asked."""

    clips: Clips
    batch: int
    first: bool

    @property
    def name(self) -> str:
        return f"{self.clips.kind}, batch {self.batch}"

    def takes(self, entry: Entry) -> bool:
        return entry.batches or self.first


def blocks_of(clips: Clips, batches: Sequence[int]) -> list[Block]:
    """A block for each size of batch."""
    return [Block(clips, batch, not number) for number, batch in enumerate(batches)]


def plan(entries: Sequence[Entry], blocks: Sequence[Block], rounds: int) -> list[Planned]:
    """Every turn in its order, the warm-up's among them."""
    return [
        Planned(entry.name, block.clips.seconds)
        for block in blocks
        for number in range(rounds + 1)
        for entry in rotated([one for one in entries if block.takes(one)], number)
    ]


def rotated(sides: Sequence[T], number: int) -> list[T]:
    """Each round begins with the next side: what comes before is another's for each."""
    first = number % len(sides) if sides else 0
    return [*sides[first:], *sides[:first]]


def take_turns(
    sides: Sequence[Contestant],
    blocks: Sequence[Block],
    rounds: int,
    language: str,
    progress: Progress,
    more: Callable[[Sequence[Row], Sequence[str]], None],
) -> None:
    """Calls `more` with a block's rows after each turn on the clock, and with who dropped out.

    The rows are all that there is of the block so far: a later call stands in the place of the one
    before. A side that fails is out of the rest.
    """
    going = list(sides)
    for block in blocks:
        turns: dict[str, list[Turn]] = {side.entry.name: [] for side in sides}
        failed: list[str] = []
        for number in range(rounds + 1):
            here = [side for side in sides if block.takes(side.entry)]
            for side in [one for one in rotated(here, number) if one in going]:
                name = side.entry.name
                which = f"round {number} of {rounds}" if number else "warm-up"
                try:
                    with progress.turn(f"{block.name}, {which}: {name}"):
                        turns[name].append(side.turn(block.clips.file, block.batch, language))
                except ChildProcessError as error:
                    say(f" failed: {error}")
                    failed.append(f"{error}, in {block.name}")
                    going.remove(side)
                    progress.skip(name)
                if number or failed:
                    more(rows_of(block.clips, block.batch, _taken(sides, turns)), failed)


def _taken(sides: Sequence[Contestant], turns: dict[str, list[Turn]]) -> list[Took]:
    return [Took(side, turns[side.entry.name]) for side in sides]
