"""`winnow bench` from its command line to its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.served import Answered, level_of, table
from service.cli import OK, USAGE, main
from tests.lab.recordings import corpus, item, tone


def test_its_help_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["bench", "clips", "--help"])
    assert exited.value.code == OK
    said = capsys.readouterr().out
    assert said.startswith("usage: winnow bench clips")
    assert "openvino-int8" in said


def test_an_installation_without_sources_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.lab.cli.__file__", str(tmp_path / "service" / "lab" / "cli.py"))
    assert main(["bench", "clips", "--corpus", "x"]) == USAGE
    assert capsys.readouterr().err == (
        "winnow: bench needs a checkout of Winnow's sources: run `python -m bench` in its folder\n"
    )


def test_shapes_without_peers_are_ours_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = ["--sides", "faster-whisper-int8,winnow:dense", "--shapes", "mini", "--batches", "1,2"]
    where = ["--peers", str(tmp_path / "peers"), "--work", str(tmp_path / "weights")]
    how = ["--tokens", "3", "--rounds", "1", "--threads", "1", "--out", str(tmp_path / "found")]
    assert main(["bench", "shapes", *sides, *where, *how]) == 1
    out, err = capsys.readouterr()
    assert "[1/4] mini, 3 tokens, batch 1, warm-up: winnow:dense ..." in err
    assert "[4/4] mini, 3 tokens, batch 2, round 1 of 1: winnow:dense ..." in err
    assert "scripts/peers makes the peers' environment" in out
    assert (tmp_path / "found.md").read_text() in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert str(tmp_path) not in found["command"]
    assert found["machine"]["threads"] == 1
    rows = [(row["side"], row["batch"], row["wer"], row["audio_s"]) for row in found["rows"]]
    assert rows == [("winnow:dense", 1, None, 30), ("winnow:dense", 2, None, 60)]
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


def test_the_service_is_asked_over_http(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODEL", "DTYPE", "THREADS", "MAX_WAIT_SECONDS", "DEADLINE_SECONDS"):
        monkeypatch.setenv(f"WINNOW_{name}", "")  # what the command sets does not outlive the test
    asked = ["--corpus", str(corpus(tmp_path / "corpus")), "--domain", "read", "--model", "fake"]
    how = ["--limit", "2", "--in-flight", "1,3", "--rounds", "1", "--profiles", "dense"]
    assert main(["bench", "http", *asked, *how, "--out", str(tmp_path / "found")]) == OK
    assert "3 in flight, round 1 of 1: dense" in capsys.readouterr().err
    levels = json.loads((tmp_path / "found.json").read_text())["levels"]
    assert [level["in_flight"] for level in levels] == [1, 3]
    assert all(level["requests_per_s"][0] > 0 and level["refused"] == 0 for level in levels)


def test_a_level_counts_what_was_answered() -> None:
    items = [item("a", "red green", tone(300, 2)), item("b", "blue", tone(300, 4))]
    rounds = [
        (2.0, [Answered(0, 1.0, "red green"), Answered(1, 2.0, "flew")]),
        (1.0, [Answered(0, 3.0, "red"), Answered(1, 0.0, None)]),
    ]
    level = level_of("dense", 2, rounds, items)
    assert level.requests_per_s == (1.0, 1.0)
    assert level.x_real_time == (3.0, 2.0)
    assert (level.p50_s, level.refused) == (2.0, 1)
    assert level.wer == pytest.approx(100 * 2 / 5)
    assert "| dense | 2 | 1.00 / **1.00** / 1.00 | 2.5 | 2.00 |" in table([level])
