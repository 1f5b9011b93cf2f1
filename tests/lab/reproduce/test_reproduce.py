"""`winnow reproduce eas` from its command line, on a small model of random weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.cli import INTERRUPTED, OK, USAGE, main
from service.decode.batch import WindowDecoder
from service.families.whisper import Whisper
from service.lab.reproduce.record import digest
from service.lab.runs import Service
from tests.lab.recordings import corpus

BEFORE_IT_IS_STOPPED = 9  # texts, those among them that were made to see how long one takes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def arguments(folder: Path, mini_folder: Path) -> list[str]:
    return [
        *("reproduce", "eas", "--model", str(mini_folder), "--device", "cpu", "--threads", "1"),
        *("--dtype", "float32", "--corpus", str(folder), "--domains", "read"),
        *("--quick", "--limit", "1", "--layers", "1", "--sparsities", "0.4", "--rounds", "1"),
    ]


@pytest.fixture(scope="module", autouse=True)
def short_texts() -> Iterator[None]:
    """Random weights say as much as they may."""
    real = Whisper.new_decode_batch

    def short(self: Whisper) -> WindowDecoder:
        batch = real(self)
        batch.token_limit = 6
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Whisper, "new_decode_batch", short)
        yield


@dataclass(frozen=True, slots=True)
class Done:
    """A run that was interrupted, and the one that went on: what each of them transcribed."""

    out: Path
    before: list[tuple[object, ...]]
    after: list[tuple[object, ...]]


@pytest.fixture(scope="module")
def done(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("out") / "report"
    before: list[tuple[object, ...]] = []
    after: list[tuple[object, ...]] = []
    real, stopped = Service.run, False

    def noted(self: Service, items: Any, profile: Any, how: Any, *rest: Any) -> Any:
        if len(before) == BEFORE_IT_IS_STOPPED and not stopped:
            raise KeyboardInterrupt
        (after if stopped else before).append((digest(items), profile, how.raw))
        return real(self, items, profile, how, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Service, "run", noted)
        assert main([*arguments, "--out", str(folder)]) == INTERRUPTED
        stopped = True
        assert main([*arguments, "--out", str(folder)]) == OK
    return Done(folder, before, after)


def test_a_report_of_every_experiment(done: Done, folder: Path, mini_folder: Path) -> None:
    out = done.out
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        "1-search.png",
        "2-runtime.png",
        "3-batch.png",
        "4-rivals.png",
        "5-aggregation.png",
        "6-repetition.png",
        "7-elsewhere.png",
        "parts",
        "report.html",
        "report.json",
    ]
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 7
    assert not re.search(r'(src|href)="(?!data:)', page), "it needs something else"
    report = json.loads((out / "report.json").read_text())
    assert str(folder) not in json.dumps(report)
    assert str(mini_folder.parent) not in page
    # One recording each decides nothing, whatever it says.
    texts = [claim for claim in report["claims"] if "Scoring" not in claim["said"]]
    assert {claim["verdict"] for claim in texts} == {"not decided"}
    assert [one["role"] for one in report["recordings"]] == [
        *("to report on", "to choose on", "to report on", "in noise"),
    ]
    dense = [text for text in report["texts"] if text["profile"]["name"] == "dense"]
    assert {(text["recordings"], text["raw"]) for text in dense} >= {
        ("read, full windows", True),
        ("read, full windows", False),
        ("read, single utterances, to choose on", True),
        ("read, full windows, noise at 10 dB", True),
    }
    for claim in report["claims"]:
        assert claim["said"] in page


def test_a_run_goes_on_where_it_was_stopped(done: Done) -> None:
    assert len(done.before) == BEFORE_IT_IS_STOPPED
    first, again, *texts = done.before
    assert first == again, "how long a text takes was tried"
    assert first not in done.after, "and is known from then on"
    assert len({*texts, *done.after}) == len(texts) + len(done.after), "none was made twice"
    report = json.loads((done.out / "report.json").read_text())
    assert len(texts) + len(done.after) == len(report["texts"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--layers", "3"], "the model has 2 encoder layers"),
        (["--sparsities", "1.5"], "sparsity must be a number, 0 <= s < 1"),
        (["--sparsities", "half"], "--sparsities 'half': use numbers"),
        (["--batches", "0"], "use whole numbers from 1 on"),
        (["--domains", ""], "nothing to evaluate on"),
        (["--model", "fake"], "no layers to time"),
        (["--search", "none.tsv"], "none.tsv"),
    ],
)
def test_what_is_asked_wrongly_is_told(
    arguments: list[str],
    tmp_path: Path,
    more: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*arguments, "--out", str(tmp_path / "out"), *more]) == USAGE
    assert said in capsys.readouterr().err
