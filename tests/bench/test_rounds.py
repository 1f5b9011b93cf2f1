"""Whose turn it is. Sides are stand-ins: what they run has tests of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from bench.contest.contestant import Contestant, Entry, Turn, entries
from bench.contest.material import Clips, hiss
from bench.contest.rounds import blocks_of, plan, rotated, take_turns
from bench.contest.side import _joined, _texts
from bench.contest.table import Row, Took, rows_of, table
from bench.progress import Progress
from service.errors import ConfigError
from tests.lab.recordings import item, tone


@dataclass(slots=True)
class Side:
    """Says the same every time; breaks at the turn `breaks_at`."""

    entry: Entry
    texts: tuple[str, ...] = ("red green",)
    breaks_at: int = 99
    took: list[tuple[str, int]] = field(default_factory=list)
    version: str = "v 1"
    compute: str = "float32"

    def turn(self, clips: Path, batch: int, language: str) -> Turn:
        self.took.append((clips.name, batch))
        if len(self.took) == self.breaks_at:
            raise ChildProcessError(f"{self.entry.name}: out of memory")
        return Turn(self.texts, float(len(self.took)), 100.0)


def side(name: str, *, batches: bool = True, breaks_at: int = 99) -> Side:
    return Side(Entry(name, "", "", batches=batches), breaks_at=breaks_at)


def run(sides: list[Side], clips: Clips, rounds: int) -> tuple[list[list[Row]], list[str]]:
    blocks = blocks_of(clips, [1, 8])
    seen: list[list[Row]] = []
    out: list[str] = []
    progress = Progress(plan([one.entry for one in sides], blocks, rounds))

    def more(rows: object, failed: object) -> None:
        seen.append(list(cast(list[Row], rows)))
        out.extend(one for one in cast(list[str], failed) if one not in out)

    take_turns(cast(list[Contestant], sides), blocks, rounds, "en", progress, more)
    assert progress.left_s() == 0
    return seen, out


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips("short", (item("a", "red green", tone(300, 2)),), tmp_path / "clips.npz")


def test_every_round_begins_with_the_next() -> None:
    assert [rotated("abc", number) for number in (0, 1, 3)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["a", "b", "c"],
    ]


def test_a_side_that_takes_one_clip_at_a_time_has_one_size_of_batch(clips: Clips) -> None:
    both, single = side("both"), side("single", batches=False)
    rows, _ = run([both, single], clips, rounds=2)
    assert both.took == [("clips.npz", 1)] * 3 + [("clips.npz", 8)] * 3
    assert single.took == [("clips.npz", 1)] * 3
    assert [row.side for row in rows[-1]] == ["both"]


def test_a_side_that_breaks_is_out_and_the_others_go_on(clips: Clips) -> None:
    good, bad = side("good"), side("bad", breaks_at=2)
    rows, out = run([good, bad], clips, rounds=1)
    assert out == ["bad: out of memory, in short, batch 1"]
    assert len(good.took) == 4
    assert len(bad.took) == 2
    assert [row.side for row in rows[-1]] == ["good"]


def test_a_side_alone_that_breaks_in_its_warm_up_is_told(clips: Clips) -> None:
    rows, out = run([side("bad", breaks_at=1)], clips, rounds=1)
    assert len(out) == 1
    assert rows == [[]]


def test_the_warm_up_counts_for_memory_only(clips: Clips) -> None:
    turns = [Turn(("red green",), 9.0, 500.0), Turn(("red",), 1.0, 90.0), Turn(("red",), 4.0, 90.0)]
    first, second = side("first"), side("second")
    ours = Took(cast(Contestant, first), [Turn(("red green",), 1.0, 1.0)] * 2)
    rows = rows_of(clips, 8, [ours, Took(cast(Contestant, second), turns)])
    assert rows[1].speeds == [0.5, 2.0]
    assert rows[1].rss_mb == 500
    assert (rows[0].wer, rows[1].wer) == (0, 50)
    assert rows[1].more is not None
    assert rows[1].more.value == 0.5
    text = table(rows, ["third: gone"])
    assert "| short | 8 | second | float32 | 50.0 | +50.0 (+50.0 to +50.0) " in text
    assert "| 0.5 / **1.2** / 2.0 | 0.62 | 500 |" in text
    assert text.endswith("not there: third: gone")


def test_where_nothing_is_said_there_is_no_error_rate(tmp_path: Path) -> None:
    window = hiss("mini", 2, tmp_path)
    turn = Turn(("x", "y"), 2.0, 1.0)
    (row,) = rows_of(window, 2, [Took(cast(Contestant, side("a")), [turn, turn])])
    assert row.wer is None
    assert row.speeds == [30.0]
    assert "| mini | 2 | a | float32 |  |  | 30.0" in table([row], [])


def test_clips_joined_for_a_peer_get_their_own_texts() -> None:
    lengths = (16_000, 8_000, 32_000)
    joined, places = _joined([np.full(n, n, np.float32) for n in lengths])
    assert [joined[round(start * 16_000)] for start, _ in places] == list(lengths)
    # A peer's times are its own: a little before a clip is still that clip, and silence has none.
    said = iter([(0.0, "a"), (places[1][0] - 0.2, "b"), (places[1][0] + 0.3, "c"), (4.0, "d")])
    assert _texts(said, places) == ["a", "bc", "d"]
    assert _texts(iter([]), places) == ["", "", ""]


def test_sides_are_named() -> None:
    ours, peer = entries(["winnow:fast:bfloat16", "whisper.cpp"])
    assert (ours.profile, ours.compute, peer.batches) == ("fast", "bfloat16", False)
    with pytest.raises(ConfigError, match=r"side 'whisperx'.*faster-whisper-int8"):
        entries(["whisperx"])


def test_hiss_fills_a_window_and_is_not_cut_off(tmp_path: Path) -> None:
    window = hiss("mini", 1, tmp_path)
    with np.load(window.file) as file:
        assert file["arr_0"].shape == (480_000,)
        assert 0 < np.abs(file["arr_0"]).max() < 1
