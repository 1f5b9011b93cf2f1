from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.cli import OK, USAGE, main
from service.errors import ConfigError
from service.lab.frontier import OF_DENSE, REAL_TIME, Point, axis_of, frontier, picture, read
from service.lab.statistics import Estimate


def point(profile: str, wer: float, speed: float, model: str = "base") -> Point:
    speeds = {REAL_TIME: Estimate(speed, speed - 1, speed + 1)}
    return Point(model, profile, Estimate(wer, wer - 0.3, wer + 0.3), speeds)


def report(path: Path, *, timed: bool = True, model: str = "base", **more: Any) -> Path:
    """As `winnow evaluate --out` writes it, what is read of it."""

    def profile(wer: float, speed: float) -> dict[str, Any]:
        less = {"value": wer - 0.058, "low": wer - 0.06, "high": wer - 0.05}
        found: dict[str, Any] = {
            "wer": {"value": wer, "low": wer - 0.01, "high": wer + 0.01},
            "difference": None if wer == 0.058 else less,
        }
        if timed:
            against = [speed / 20, speed / 21, speed / 19]
            found["speed"] = {"rounds": [speed, speed + 1, speed - 2], "against_dense": against}
        return found

    profiles = {"dense": profile(0.058, 20), "fast": profile(0.063, 30)}
    domains = [
        {"domain": "untimed", "profiles": {"dense": {"wer": {"value": 0.1}, "difference": None}}},
        {"domain": "read-packed", "profiles": profiles},
    ]
    path.write_text(json.dumps({"model": {"name": model}, "domains": domains, **more}))
    return path


def near(*percent: float) -> object:
    return Estimate(*map(pytest.approx, percent))  # type: ignore[arg-type]


def test_a_report_is_read(tmp_path: Path) -> None:
    domain, (dense, fast) = read(report(tmp_path / "a.json"))
    assert domain == "read-packed"
    assert (dense.profile, fast.profile) == ("dense", "fast")
    assert dense.wer == near(5.8, 5.8, 5.8)
    # Its own rate, between dense's plus the ends of the paired difference.
    assert fast.wer == near(6.3, 6.1, 7.1)
    assert fast.speeds[REAL_TIME] == Estimate(30, 28, 31)
    assert fast.speeds[OF_DENSE].value == pytest.approx(1.5)


def test_a_search_says_times_against_dense_alone(tmp_path: Path) -> None:
    speed = {"against_dense": {"dense": [1, 1, 1], "fast": [1.4, 1.6, 1.5]}}
    _, points = read(report(tmp_path / "s.json", timed=False, speed=speed), "read-packed")
    assert axis_of(points) == OF_DENSE
    assert points[1].speeds == {OF_DENSE: Estimate(1.5, 1.4, 1.6)}
    assert axis_of([*points, point("x", 1, 1)]) == OF_DENSE
    assert axis_of([point("x", 1, 1)]) == REAL_TIME


def test_what_cannot_be_drawn_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing in it was timed"):
        read(report(tmp_path / "a.json", timed=False))
    with pytest.raises(ConfigError, match="no domain 'spoken'; it has untimed, read-packed"):
        read(report(tmp_path / "a.json"), "spoken")
    with pytest.raises(ConfigError, match="nothing in it was timed"):
        read(report(tmp_path / "a.json"), "untimed")
    for text in ("", "[]", "{}"):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(ConfigError, match="not what winnow evaluate"):
            read(tmp_path / "b.json")


def test_the_frontier() -> None:
    dense, slow, fast, worse, fastest = (
        point("dense", 5, 20),
        point("slow", 5.5, 15),
        point("fast", 6, 30),
        point("worse", 7, 29),
        point("fastest", 9, 40),
    )
    assert frontier([fastest, worse, slow, dense, fast], REAL_TIME) == [dense, fast, fastest]
    better = point("better", 4, 45)
    assert frontier([dense, better, fast], REAL_TIME) == [better]
    assert frontier([point("same", 6, 30), fast], REAL_TIME) == [point("same", 6, 30)]


def test_names_lie_on_nothing() -> None:
    rng = np.random.default_rng(0)
    crowd = [
        point(f"attention-{n}-0.5", 6 + n / 10, 20 + n + rng.random() / 4, model)
        for n in range(6)
        for model in ("base", "tiny.en")
    ]
    (axes,) = picture("read", crowd).axes
    names = [text for text in axes.texts if text.get_text()]  # others are lines to a mark
    assert sorted(text.get_text() for text in names) == sorted(p.profile for p in crowd)
    boxes = [text.get_window_extent() for text in names]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    marks = axes.transData.transform([(p.speeds[REAL_TIME].value, p.wer.value) for p in crowd])
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    assert all(axes.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = [
        str(report(tmp_path / f"{name}.json", model=name)) for name in ("whisper-base", "tiny.en")
    ]
    out = tmp_path / "frontier.png"
    assert main(["plot", *reports, "--out", str(out)]) == OK
    assert out.read_bytes().startswith(b"\x89PNG")
    assert main(["plot", reports[0], "--domain", "spoken", "--out", str(out)]) == USAGE
    assert "no domain 'spoken'" in capsys.readouterr().err
