"""`winnow evaluate` from its command line, with the fake model, which reads what its sounds say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from service.cli import INTERRUPTED, OK, USAGE, main
from service.errors import ConfigError
from service.lab.evaluate import grid, in_turns
from service.lab.runs import Service
from service.profiles import BUILT_IN, Profile
from tests.lab.recordings import corpus, tone, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


def evaluate(out: Path, *arguments: str) -> dict[str, Any]:
    status = main(["evaluate", "--model", "fake", "--raw", "--out", str(out), *arguments])
    assert status == OK
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_a_corpus_by_domain_and_profile(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--corpus", str(folder), "--domains", "read-packed,noise", "--noise", "5"]
    found = evaluate(tmp_path / "out.json", *arguments, "--profiles", "fast", "--texts")
    assert [domain["domain"] for domain in found["domains"]] == [
        "read-packed",
        "noise",
        "read-packed@5dB",
    ]
    assert str(folder) not in json.dumps(found)
    assert f"--corpus {folder.name} --domains read-packed" in found["command"]
    packed, noise, _ = found["domains"]
    assert list(packed["profiles"]) == ["dense", "fast"]
    assert (packed["seconds"], len(packed["items"])) == (40.6, 2)
    dense, fast = packed["profiles"].values()
    # It says a word a second where four were said.
    assert (dense["words"], dense["windows"]) == (8, 2)
    assert dense["insertions"] + dense["substitutions"] >= 36
    assert dense["difference"] is None
    assert fast["difference"]["low"] <= fast["difference"]["value"] <= fast["difference"]["high"]
    assert noise["profiles"]["dense"]["wer"] == {"value": None, "low": None, "high": None}
    assert noise["profiles"]["dense"]["invented"] == sum(
        item.get("invented", False) for item in noise["profiles"]["dense"]["items"]
    )
    printed = capsys.readouterr().out
    assert printed.count("| domain |") == 1
    assert f"| read-packed | 2 | dense | {100 * dense['wer']['value']:.1f}% |" in printed


def test_intervals_can_be_worked_out_again(folder: Path, tmp_path: Path) -> None:
    arguments = ["--corpus", str(folder), "--domains", "read", "--split", "all"]
    found = evaluate(tmp_path / "out.json", *arguments)["domains"][0]
    words = sum(item["words"] for item in found["items"])
    for profile in found["profiles"].values():
        errors = sum(sum(item["errors"]) for item in profile["items"])
        assert profile["wer"]["value"] == pytest.approx(errors / words, abs=1e-6)
        kinds = profile["substitutions"] + profile["deletions"] + profile["insertions"]
        assert errors == kinds


def test_a_manifest_of_ones_own_is_a_domain(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.wav", tone(300, 12))
    lines = [json.dumps({"audio_filepath": f"{n}.wav", "text": "ba"}) for n in range(3)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    arguments = ["--manifest", str(tmp_path / "mine.jsonl"), "--pack", "--profiles", "dense"]
    found = evaluate(tmp_path / "out.json", *arguments)["domains"]
    assert [(domain["domain"], len(domain["items"])) for domain in found] == [
        ("mine", 3),
        ("mine-packed", 1),
    ]


def test_speed_and_times_are_beside_the_words(folder: Path, tmp_path: Path) -> None:
    arguments = ["--corpus", str(folder), "--domains", "read", "--profiles", "fast"]
    found = evaluate(tmp_path / "out.json", *arguments, "--speed", "2", "--times")
    fast = found["domains"][0]["profiles"]["fast"]
    assert len(fast["speed"]["rounds"]) == len(fast["speed"]["against_dense"]) == 2
    assert fast["speed"]["min"] <= fast["speed"]["median"] <= fast["speed"]["max"]
    times = fast["times_against_dense"]
    assert times["words"] >= times["matched"] > 0
    assert times["start_median_s"] == 0  # the fake's words begin on the second, sparse or not
    assert math.isfinite(times["end_p90_s"])


def test_profiles_take_turns() -> None:
    order: list[str] = []

    def seconds(profile: Profile) -> float:
        order.append(profile.name)
        return len(order)

    took = in_turns([BUILT_IN[name] for name in ("dense", "balanced", "fast")], 4, seconds)
    assert order[:9] == [
        *("dense", "balanced", "fast"),
        *("balanced", "fast", "dense"),
        *("fast", "dense", "balanced"),
    ]
    assert took["dense"] == [1, 6, 8, 10]


def test_a_grid_is_otherwise_like_its_profile() -> None:
    like = Profile("careful", 4, 0.2, aggregation="max")
    made = grid("1,3:0.4,0.5", like)
    assert [(p.name, p.layer, p.sparsity, p.aggregation) for p in made] == [
        ("careful-1-0.4", 1, 0.4, "max"),
        ("careful-1-0.5", 1, 0.5, "max"),
        ("careful-3-0.4", 3, 0.4, "max"),
        ("careful-3-0.5", 3, 0.5, "max"),
    ]
    for text in ("", "1", "1:x", "1:0.5:2", "a:0.5"):
        with pytest.raises(ConfigError, match="LAYERS:SPARSITIES"):
            grid(text, like)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to evaluate on"),
        (["--domains", "read"], "give --corpus"),
        (["--corpus", "CORPUS", "--domains", "spoken"], "there are noise, read"),
        (["--corpus", "CORPUS", "--domains", "read", "--noise", "much"], "use numbers of dB"),
        (["--corpus", "CORPUS", "--domains", "read", "--profiles", "slow"], "unknown profile"),
        (["--corpus", "CORPUS", "--domains", "read", "--grid", "2"], "LAYERS:SPARSITIES"),
        (["--corpus", "CORPUS", "--domains", "read", "--grid", "9:0.5"], "4 encoder layers"),
        (["--manifest", "none.tsv"], "none.tsv"),
    ],
)
def test_what_is_asked_wrongly_is_told(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(folder) if argument == "CORPUS" else argument for argument in arguments]
    assert main(["evaluate", "--model", "fake", *given]) == USAGE
    assert said in capsys.readouterr().err


def test_an_interruption_is_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Service, "run", interrupted)
    arguments = ["evaluate", "--model", "fake", "--corpus", str(folder), "--domains", "read"]
    assert main(arguments) == INTERRUPTED
    assert capsys.readouterr().err == "winnow: interrupted\n"
