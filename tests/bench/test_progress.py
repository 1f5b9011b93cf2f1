from __future__ import annotations

import pytest

from bench.progress import Planned, Progress


def test_what_is_left_is_told_by_each_sides_own_pace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 200.0, 200.0, 230.0])
    monkeypatch.setattr("bench.progress.time.perf_counter", lambda: next(clock))
    turns = [Planned("slow", 10), Planned("quick", 10)]
    progress = Progress([*turns, *turns, Planned("new", 10)])
    with progress.turn("a"):
        pass
    assert progress.left_s() == pytest.approx(200 * 4)  # one pace is known
    with progress.turn("b"):
        pass
    assert progress.left_s() == pytest.approx(200 + 30 + 115)
    progress.skip("slow")
    assert progress.left_s() == pytest.approx(30 + 115)
    progress.skip_next(2)
    assert progress.left_s() == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[1/5] a ... 200.0 s; about 13 min left"
