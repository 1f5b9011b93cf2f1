from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtest.accuracy import WordErrors
from loadtest.campaign import Overload
from loadtest.report import Report, closing, head, line
from loadtest.results import SOAK
from loadtest.server_side import Memory

from .made import result, setting


def test_a_line_has_the_figures_of_its_step_below_their_names() -> None:
    names, figures = head(), line(result("fast", 2.0, refused=5))
    for name, figure in (
        ("rate/s", "2.00"),
        ("sent", "25"),
        ("p95 s", "0.50"),
        ("errors", "20.0%"),
        ("429", "20.0%"),
        ("RTFx", "8.0"),
        ("RTF", "0.050"),
        ("queued", "0.25"),
        ("batch", "1.5"),
        ("WER", "10.0%"),
        ("late ms", "1.0"),
    ):
        end = names.index(f"{name} ") + len(name) if f"{name} " in names else len(names)
        assert figures[:end].endswith(figure), name


def test_what_is_not_known_is_a_dash() -> None:
    shown = line(result(latencies_s=(), words=WordErrors()))
    assert shown.count(" -") == 4


def test_a_bottleneck_of_the_generator_is_said() -> None:
    steps = [result(), result(limited=True)]
    report = Report(setting(shares_machine=True), steps)
    assert "THE GENERATOR WAS THE BOTTLENECK in 1 of 2 steps" in closing(report)
    assert "shared this machine of 8 cores" in closing(report)
    assert report.to_json()["generator_limited_steps"] == 1
    quiet = closing(Report(setting(), [result()]))
    assert "BOTTLENECK" not in quiet
    assert "shared this machine" not in quiet


def test_the_closing_tells_maxima_memory_overload_words_and_problems() -> None:
    soaked = result(kind=SOAK, memory=(Memory(0, 300), Memory(5, 310.4)))
    report = Report(
        setting(),
        [soaked],
        maxima={"dense": 5.0, "fast": None},
        overloads=[Overload("dense", 4.0, 0.97, 0.95, 0.7, 90, 9, 8 / 9)],
        problems=["dense: too slow"],
        interrupted=True,
    )
    said = closing(report)
    for sentence in (
        "maximum of dense: 5.00 requests/s",
        "maximum of fast: no rate held",
        "memory of the server, dense: 0 min 300 MB, 5 min 310 MB",
        "dense at 4 times its maximum: goodput 97% (requests) and 95% (audio)",
        "70.0% refused with 429; 9 came back as told, 88.9% were accepted",
        "word errors of dense: 1 of 10, 10.0%",
        "INTERRUPTED",
        "FAILED: dense: too slow",
    ):
        assert sentence in said


def test_json_and_picture_are_written_as_far_as_there_is_something(tmp_path: Path) -> None:
    report = Report(setting())
    report.write(tmp_path / "empty" / "deep")
    assert [p.name for p in (tmp_path / "empty" / "deep").iterdir()] == ["report.json"]
    report.steps += [result("dense", 1.0), result("fast", 2.0, latencies_s=())]
    report.write(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["word_errors"]["dense"] == {"errors": 1, "words": 10, "wer": 0.1}
    assert content["num_requests"] == 20
    assert content["steps"][1]["summary"]["p95_s"] is None
    assert set(content) >= {"command", "date", "machine", "model", "mix", "arrivals", "seed"}
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_word_errors_of_a_profile_are_those_of_all_its_steps() -> None:
    report = Report(setting(), [result(), result(words=WordErrors(4, 10)), result("fast")])
    assert report.word_errors()["dense"].wer == pytest.approx(0.25)
