"""What was measured of a profile: read from what is shipped, and said in a sentence."""

from __future__ import annotations

import datetime
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import ConfigError
from service.evidence import REFERENCE, UNMEASURED, Evidence, evidence_of, measured
from service.profiles import (
    BUILT_IN,
    SHIPPED,
    Profile,
    Tables,
    all_profiles,
    load_profiles,
    shipped_tables,
)

ONE = Evidence(
    data="LibriSpeech",
    windows=71,
    wer_percent=8.0,
    dense_wer_percent=7.7,
    low_points=-0.45,
    high_points=1.2,
    machine="2 cores",
    command="winnow evaluate",
    date=datetime.date(2026, 11, 26),
)
TABLE = """
[balanced]
layer = 2
sparsity = 0.5
[[balanced.evidence]]
data = "LibriSpeech"
windows = 71
wer_percent = 8.0
dense_wer_percent = 7.7
low_points = -0.45
high_points = 1.2
machine = "2 cores"
command = "winnow evaluate"
date = 2026-11-26
"""
MEASURED = Profile("balanced", layer=2, sparsity=0.5)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("service.profiles.SHIPPED", tmp_path)
    file = tmp_path / "whisper-base.toml"
    file.write_text(TABLE)
    return file


def test_evidence_is_of_one_model_and_of_exactly_what_was_measured(shipped: Path) -> None:
    assert evidence_of(MEASURED, "Systran/faster-whisper-base") == (ONE,)
    assert evidence_of(MEASURED, "openai/whisper-small") == ()
    assert evidence_of(replace(MEASURED, layer=1), "base") == ()
    assert evidence_of(BUILT_IN["fast"], "base") == ()


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({}, ""),
        ({"meant_points": 0.3, "meant_speed": 1.6, "low_points": 0.2}, ""),
        ({"meant_points": 0.3, "wer_percent": 8.04}, ""),
        ({"meant_points": 0.2}, " That misses its aim: it is meant to cost at most 0.2 points."),
        (
            {"meant_points": 0.2, "meant_speed": 2.0, "speed": 1.9},
            " That misses its aim: it is meant to cost at most 0.2 points and it is meant to be "
            "2.0 times as fast.",
        ),
        ({"meant_points": 0.5, "meant_speed": 1.6, "speed": 1.55}, ""),
    ],
    ids=str,
)
def test_where_an_aim_is_missed_it_is_said(figures: dict[str, float], missed: str) -> None:
    one = replace(ONE, **figures)  # type: ignore[arg-type]
    speed = f"; {one.speed:.1f} times dense's speed" if one.speed else ""
    assert one.sentence.endswith(f" windows of LibriSpeech{speed}.{missed}")


def test_evidence_that_says_something_else_is_refused(shipped: Path) -> None:
    shipped.write_text(TABLE + "wer = 8.0\n")
    with pytest.raises(ConfigError, match=r"evidence of profile balanced: .*wer"):
        evidence_of(MEASURED, "base")


OWN = TABLE.replace("command =", 'model = "openai/whisper-base"\ncommand =')


def own(text: str) -> Tables:
    return tomllib.loads(text)


def test_a_file_of_ones_own_has_evidence_of_the_model_that_it_names() -> None:
    tables = own(OWN)
    assert all_profiles(tables)["balanced"] == MEASURED
    assert evidence_of(MEASURED, "Systran/faster-whisper-base", tables) == (ONE,)
    assert evidence_of(MEASURED, "small", tables) == ()


def test_evidence_of_ones_own_goes_before_what_is_shipped(shipped: Path) -> None:
    own_one = replace(ONE, data="ours")
    tables = own(OWN.replace("LibriSpeech", "ours"))
    assert evidence_of(MEASURED, "base", tables) == (own_one,)
    without = own("[balanced]\nlayer = 2\nsparsity = 0.5")
    assert evidence_of(MEASURED, "base", without) == (ONE,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TABLE, "model must name what it was measured on"),
        (OWN.replace('"openai/whisper-base"', "3"), "model must name"),
        (OWN.replace("windows = 71", "windows = 71.5"), "windows must be a whole number"),
        (OWN.replace("wer_percent = 8.0", "wer_percent = '8'"), "wer_percent must be a number"),
        (OWN.replace("2026-11-26", "'yesterday'"), "date must be a date, as 2026-11-26"),
        (OWN.replace("windows = 71", "speed = true\nwindows = 71"), "speed must be a number"),
        ("[balanced]\nevidence = 'good'", r"use tables like \[\[balanced.evidence\]\]"),
        ("[balanced]\nevidence = ['good']", "use tables like"),
    ],
)
def test_evidence_of_ones_own_that_cannot_be_shown_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"evidence of profile balanced: .*{says}"):
        evidence_of(MEASURED, "base", own(text))


def test_the_sentence() -> None:
    says = (
        "WER 8.0% against 7.7% dense (difference +0.3, 95% −0.5 to +1.2) "  # noqa: RUF001
        "on 71 windows of LibriSpeech"
    )
    both = (replace(ONE, low_points=-0.46), replace(ONE, low_points=-0.46, speed=1.62))
    assert measured(MEASURED, both) == f"{says}. {says}; 1.6 times dense's speed."
    assert measured(MEASURED, ()) == UNMEASURED
    assert measured(BUILT_IN["dense"], ()) == REFERENCE


@pytest.mark.parametrize("model", [file.name.removesuffix(".toml") for file in SHIPPED.iterdir()])
def test_what_is_shipped_is_of_built_in_profiles_and_adds_up(model: str) -> None:
    tables, profiles = shipped_tables(model), load_profiles(None, model)
    assert set(tables) <= set(BUILT_IN)
    assert profiles["eas-published"] == BUILT_IN["eas-published"]
    for name, table in tables.items():
        assert profiles[name].is_dense == (name == "dense")
        evidence = evidence_of(profiles[name], model)
        assert len(evidence) == len(table.get("evidence", ()))
        for one in evidence:
            assert one.low_points <= one.difference_points <= one.high_points
            assert one.date.year >= 2026
