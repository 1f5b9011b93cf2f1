"""`winnow search` from its command line, with the fake model, which names a sound a second."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.cli import INTERRUPTED, OK, USAGE, main
from service.config import ServerConfig
from service.evidence import evidence_of, measured
from service.families.fake import FakeModel
from service.lab.packing import Pcm, to_float
from service.lab.runs import How, Service
from service.lab.search.state import FILE
from service.profiles import all_profiles, own_tables
from tests.lab.recordings import item, tone, write

ROOT = Path(__file__).parents[3]
START_S = 300.0  # a busy machine imports torch slowly
SECONDS, NUM = 10, 16
# A frame is left of every second, of nine seconds in ten, of one in three.
SPARSITIES = ("0.5", "0.982", "0.9934")


def voice(number: int) -> Pcm:
    rng = np.random.default_rng(number)
    return np.concatenate([tone(300 + 170 * int(rng.integers(20)), 1) for _ in range(SECONDS)])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 recordings of four speakers, with what the fake model says of them dense."""
    folder = tmp_path_factory.mktemp("mine")
    items = [item(f"{n}.wav", "", voice(n)) for n in range(NUM)]
    with Service(ServerConfig(), FakeModel) as service:
        answers = service.run(items, all_profiles({})["dense"], How(raw=True)).answers
    rows = ["path\tspeaker\ttranscript"]
    for number, (one, answer) in enumerate(zip(items, answers, strict=True)):
        assert len(answer.text.split()) == SECONDS
        assert np.abs(to_float(one.pcm)).max() > 0.1
        write(folder / one.name, one.pcm)
        # Said five times over, so that there are words enough; the fake misses the others alike.
        rows.append(f"{one.name}\tspeaker {number % 4}\t{' '.join([answer.text] * 5)}")
    (folder / "mine.tsv").write_text("\n".join(rows) + "\n")
    return folder / "mine.tsv"


def arguments(manifest: Path, state: Path, *more: str) -> list[str]:
    return [
        *("search", "--model", "fake", "--raw", "--manifest", str(manifest)),
        *("--sparsity", ",".join(SPARSITIES), "--layer", "1,2", "--pool", "mean"),
        *("--first", "3", "--survivors", "3", "--rounds", "1", "--budgets", "0.5,5,15"),
        *("--state", str(state), *more),
    ]


def without_clock(folder: Path) -> dict[str, Any]:
    """Everything that was found but speed, date and command."""
    found: dict[str, Any] = json.loads((folder / "search.json").read_text())
    return {key: value for key, value in found.items() if key not in ("speed", "date", "command")}


@pytest.fixture(scope="module")
def whole(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a search that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(arguments(manifest, folder)) == OK
    return folder


def test_a_search_that_was_killed_ends_as_one_that_was_not(
    manifest: Path, whole: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "service", *arguments(manifest, tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    file, until = tmp_path / FILE, time.monotonic() + START_S
    try:
        while not (file.exists() and file.read_bytes().count(b"\n") > 20):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.001)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "search.json").exists()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines) + lines[-1][:25])  # a line that was being written
    assert main(arguments(manifest, tmp_path)) == OK
    assert without_clock(tmp_path) == without_clock(whole)
    records = [json.loads(line) for line in file.read_text().splitlines()]
    answers = Counter((r["candidate"], r["item"]) for r in records if "candidate" in r)
    assert set(answers.values()) == {1}
    assert file.read_bytes().startswith(b"".join(lines))


def test_two_searches_with_one_seed_agree_and_one_that_is_done_is_not_done_again(
    manifest: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (whole / FILE).read_bytes()
    found = without_clock(whole)
    profiles = (whole / "profiles.toml").read_text()
    assert main(arguments(manifest, whole)) == OK
    assert (whole / FILE).read_bytes() == before
    assert without_clock(whole) == found
    assert (whole / "profiles.toml").read_text() == profiles  # speed was kept as well
    assert "answers are known from before" in capsys.readouterr().err


def test_what_it_found(whole: Path) -> None:
    found = without_clock(whole)
    chosen = {c["budget_points"]: c["chosen"] for c in found["choices"]}
    assert chosen[0.5] is None
    assert "too little speech to tell" in found["choices"][0]["why"]
    # Of every tenth word that is missing, a fifth of the reference has one: two points.
    assert chosen[5] == "layer1-s0.982-mean"
    assert chosen[15] == "layer1-s0.9934-mean"
    (domain,) = found["domains"]
    assert list(domain["profiles"]) == ["dense", "layer1-s0.982-mean", "layer1-s0.9934-mean"]
    assert {one["speaker"] for one in domain["items"]} < {f"speaker {n}" for n in range(4)}
    assert len(found["stages"]) == 2
    assert [len(stage["standings"]) for stage in found["stages"]] == [6, 3]
    report = (whole / "report.md").read_text()
    assert "5 points: layer1-s0.982-mean" in report
    assert "0.5 points: none. Too little speech" in report
    assert str(whole) not in report + json.dumps(found)


def test_what_it_wrote_is_served_as_it_is(whole: Path) -> None:
    tables = own_tables(whole / "profiles.toml")
    assert list(tables) == ["budget-5", "budget-15"]
    profiles = all_profiles(tables, "fake")
    assert (profiles["budget-5"].layer, profiles["budget-5"].sparsity) == (1, 0.982)
    evidence = evidence_of(profiles["budget-5"], "fake", tables)
    (domain,) = without_clock(whole)["domains"]
    wer = domain["profiles"]["layer1-s0.982-mean"]["wer"]["value"]
    assert [(one.data, one.windows) for one in evidence] == [("mine, test split", 8)]
    assert evidence[0].wer_percent == pytest.approx(100 * wer, abs=1e-3)
    assert measured(profiles["budget-5"], evidence).startswith("WER ")
    assert evidence_of(profiles["budget-5"], "base", tables) == ()
    text = (whole / "profiles.toml").read_text()
    assert "# 0.5 points: none. Too little speech to tell" in text
    assert "# Chosen on the train split: mine (8 recordings" in text


def test_another_search_is_refused(
    manifest: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gates.json").write_text("{}")
    for more, said in (
        (["--seed", "1"], "another seed (0, not 1)"),
        (["--limit", "5"], "other recordings"),
        (["--adapters", str(tmp_path)], "another space"),
    ):
        assert main(arguments(manifest, whole, *more)) == USAGE
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--budgets", "few"], "--budgets 'few': use percentage points"),
        (["--budgets", "0,1"], "use percentage points"),
        (["--sparsity", "2"], "nothing to search"),
        (["--space", "none.toml"], "--space and --layer: give one of them"),
        (["--domains", "read"], "give --corpus"),
    ],
)
def test_what_is_asked_wrongly_is_told(
    manifest: Path,
    tmp_path: Path,
    more: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(arguments(manifest, tmp_path, *more)) == USAGE
    assert said in capsys.readouterr().err


def test_whoever_interrupts_is_told_how_to_go_on(
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Service, "run", interrupted)
    assert main(arguments(manifest, tmp_path / "s")) == INTERRUPTED
    said = capsys.readouterr().err
    assert f"what was found so far is in {tmp_path / 's'}; the same command goes on" in said
