"""`winnow explain`, on the model without weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from service.cli import FAILED, OK, USAGE, main
from tests.api.harness import voice


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recording, in a folder where things may be written."""
    path = tmp_path / "speech.wav"
    path.write_bytes(voice(3))
    monkeypatch.chdir(tmp_path)
    return path


def explain(*arguments: str) -> int:
    return main(["explain", "--model", "fake", *arguments])


def test_a_page_beside_one_where_no_name_is_given(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(str(recording), "--profile", "fast") == OK
    assert capsys.readouterr().out == "wrote speech-fast.html\n"
    page = Path("speech-fast.html").read_text()
    assert "<title>speech.wav under fast - Winnow</title>" in page
    assert "1,500 merged into 750" in page


def test_both_kinds_of_one_run_and_a_profile_of_ones_own(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.toml").write_text("[few]\nlayer = 1\nsparsity = 0.75\nselection = 'stride'\n")
    own = ("--profiles-file", "own.toml", "--profile", "few", "--audio")
    assert explain(str(recording), *own, "--out", "a.html", "--out", "b.png") == OK
    assert capsys.readouterr().out == "wrote a.html\nwrote b.png\n"
    assert "data:audio/flac" in Path("a.html").read_text()
    with Image.open("b.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("none.wav",), "none.wav: there is no such file"),
        (("speech.wav", "--profile", "quick"), "unknown profile 'quick'; use dense, balanced"),
        (("speech.wav", "--out", "a.pdf"), "--out a.pdf: use a name that ends in .html or .png"),
        (("speech.wav", "--out", "no/a.png"), "there is no folder no"),
        (("speech.wav", "--out", "a.png", "--audio"), "a PNG cannot be heard"),
        (("speech.wav", "--language", "klingon"), "unknown language 'klingon'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    recording: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    assert explain(*arguments) == USAGE
    assert sentence in capsys.readouterr().err


def test_a_place_that_cannot_be_written(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.html").mkdir()
    assert explain(str(recording), "--out", "a.html") == USAGE
    assert "winnow: --out a.html cannot be written: Is a directory" in capsys.readouterr().err


def test_what_is_no_audio(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording.write_text("nothing to be heard")
    assert explain(str(recording)) == FAILED
    assert capsys.readouterr().err.count("winnow: ") == 1


def test_a_png_without_matplotlib_is_refused_before_anything_is_read(
    recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert explain(str(recording), "--out", "a.png") == USAGE
    told = capsys.readouterr().err
    assert told == "winnow: a PNG needs matplotlib: pip install matplotlib, or --out X.html\n"
