"""`winnow reproduce ctc` from its command line, on a small model of random weights; its claims."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.cli import OK, USAGE, main
from service.lab.reproduce.claim import Claim, Verdict
from service.lab.reproduce.ctc import study
from service.lab.reproduce.ctc.claims import Encoder, apart, best, blank_way, claims
from service.lab.reproduce.ctc.data import lessons
from service.lab.reproduce.ctc.experiments import thinnings
from service.lab.reproduce.ctc.rounding import KINDS, MODULE, Bits, variants
from service.lab.reproduce.ctc.study import Heard, Listener, Moved
from tests.lab.recordings import item, tone, write

ITEMS = 6


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two utterances of 9.5 s of each of three speakers, two of them for training."""
    folder = tmp_path / "corpus"
    rows = ["path\tsplit\tseconds\tspeaker\tlanguage\ttranscript\tlicence"]
    for number in range(6):
        name, split = f"read/{number}.wav", "test" if number > 3 else "train"
        write(folder / name, tone(300 + 200 * number, 9.5))
        rows.append(f"{name}\t{split}\t9.5\t{number // 2}\ten\tall well {'ab'[number % 2]}\tnone")
    (folder / "manifest.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_the_command_trains_and_goes_on_where_it_was_stopped(
    corpus: Path,
    mini_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    command = ["reproduce", "ctc", "--model", str(mini_folder), "--corpus", str(corpus)]
    command += ["--learn", "read", "--domains", "read-packed", "--upper", "1", "--kernels", "3,1"]
    command += ["--steps", "1,2,1", "--threads", "1", "--out", str(out)]
    assert main(command) == OK
    said = capsys.readouterr().out
    assert "convolution and attention: half of the frames by attention cost" in said
    whole = json.loads((out / "report.json").read_text())
    assert [one["kernel"] for one in whole["encoders"]] == [3, 1]
    assert [len(one["rounded"]) for one in whole["encoders"]] == [len(variants())] * 2
    assert {way for one in whole["encoders"][0]["dropped"] for way in one["ways"]} == {*study.WAYS}
    taps = {one["thinning"]["taps"] for one in whole["encoders"][0]["dropped"]}
    assert taps == {"kept", "held", "apart"}
    assert whole["about"]["training"]["steps"] == [1, 2, 1]
    page = (out / "report.html").read_text()
    assert "Dropped frames: attention alone" in page
    read = (out / "README.md").read_text()
    assert "## Dropped frames: attention alone\n" in read
    assert read.count("50.0% after layer 1, every n-th") == page.count(
        "50.0% after layer 1, every n-th"
    )
    assert str(tmp_path) not in page + read

    def never(*_: object, **__: object) -> None:
        raise AssertionError("once more")

    monkeypatch.setattr("service.lab.reproduce.ctc.train.windows_of", never)
    monkeypatch.setattr(Listener, "thinned", never)
    monkeypatch.setattr(Listener, "rounded", never)
    assert main(command) == OK
    again = json.loads((out / "report.json").read_text())
    assert again["encoders"] == whole["encoders"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ((), "give --corpus"),
        (("--kernels", "4"), "a kernel must be odd"),
        (("--steps", "1,2"), "give three numbers"),
        (("--upper", "9"), "--upper 9"),
    ],
)
def test_what_cannot_be_is_refused(
    more: tuple[str, ...],
    sentence: str,
    corpus: Path,
    mini_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["reproduce", "ctc", "--model", str(mini_folder), "--out", str(tmp_path / "out")]
    command += ["--learn", "read", "--domains", "read", *more]
    command += ["--corpus", str(corpus)] if more else []
    try:
        status = main(command)
    except SystemExit as left:
        status = left.code  # type: ignore[assignment]
    assert status == USAGE
    assert sentence in capsys.readouterr().err


def test_nobody_who_is_chosen_on_is_learned_from() -> None:
    items = [item(str(n), "word", tone(300, 10), speaker=str(n // 2)) for n in range(40)]
    items.append(item("figures", "25 men", tone(300, 10), speaker="0"))
    found = lessons(items)
    assert {one.speaker for one in found.held} == {"9", "19"}
    assert {one.speaker for one in found.alone} == {str(n) for n in range(20)} - {"9", "19"}
    assert {one.speaker for one in found.joined} == {one.speaker for one in found.alone}
    assert "figures" not in {one.name for one in found.alone}
    two = lessons([item(str(n), "word", tone(300, 10 + n), speaker=str(n // 2)) for n in range(4)])
    assert [one.name for one in two.alone] == ["0", "1"]
    assert [one.name for one in two.told] == [one.name for one in two.joined] == ["0 and 1 more"]


def heard(*errors: int, lost: int = 0) -> Heard:
    same = (10,) * len(errors)
    return Heard(errors, (100,) * len(errors), errors, same, (lost,) * len(errors), same)


def moved(*divergence: float) -> Moved:
    same = (1.0,) * len(divergence)
    return Moved(divergence, (10,) * len(divergence), same, same)


def encoder(kernel: int, lost: int = 0, pair: float = 2.0, **ways: int) -> Encoder:
    """Everything dropped costs as many errors a window as are given for a way; each kind alone
    moves 1, the module with attention `pair`, other pairs 2."""
    name = {1: "alone"}.get(kernel, "convolved")
    dense = heard(*range(2, 2 + ITEMS))
    found = {}
    for thinning in thinnings(3, 2, kernel):
        costs = {
            way: ways.get(way.split()[-2] if "blank" in way else "plain", 0) for way in study.WAYS
        }
        costs[study.BETWEEN] = ways.get("between", costs[study.PLAIN])
        if thinning.taps != "kept":
            costs = dict.fromkeys(study.WAYS, ways.get(thinning.taps, 0))
        costs = {way: cost + 5 * (thinning.layer != 2) for way, cost in costs.items()}
        found[thinning] = {
            way: heard(*(n + cost for n in range(2, 2 + ITEMS)), lost=lost)
            for way, cost in costs.items()
        }
    steps = np.linspace(0.99, 1.01, ITEMS)
    rounded = {}
    for bits in variants():
        much = {1: 1.0, 2: 2.0, 3: 3.0}[len(bits.kinds)]
        if bits.kinds == (MODULE, "attention"):
            much = pair
        if kernel > 1 and bits == Bits(KINDS, 4):
            much += 1
        rounded[bits] = (moved(*(much * steps)), dense)
    return Encoder(name, kernel, 1, dense, found, found, rounded, dict.fromkeys(KINDS, 1))


def verdict(made: list[Claim], begins: str) -> Verdict:
    (found,) = [claim.verdict for claim in made if claim.said.startswith(begins)]
    return found


def test_verdicts_follow_the_figures() -> None:
    convolved = encoder(5, lost=2, pair=3.0, plain=4, between=1, held=1, apart=9, **{"3": 2})
    made = claims([convolved, encoder(1, plain=1)])
    assert verdict(made, "convolved: half of the frames by attention cost") == Verdict.FAILS
    assert verdict(made, "alone: half of the frames by means cost") == Verdict.HOLDS
    assert verdict(made, "convolved: where every second") == Verdict.HOLDS
    assert verdict(made, "alone: where every second") == Verdict.OPEN
    assert verdict(made, "convolved: log-probabilities in a line") == Verdict.HOLDS
    assert verdict(made, "alone: log-probabilities in a line") == Verdict.OPEN
    assert verdict(made, "convolved: a blank assumed") == Verdict.HOLDS
    assert verdict(made, "convolved: convolutions over states held") == Verdict.HOLDS
    assert verdict(made, "convolved: convolutions at the distances") == Verdict.FAILS
    assert verdict(made, "Dropped frames cost convolved more") == Verdict.HOLDS
    assert verdict(made, "alone takes 4 bits better") == Verdict.HOLDS
    assert verdict(made, "convolved: rounding convolution and attention to 4") == Verdict.HOLDS
    assert verdict(made, "convolved: rounding attention and feed-forward to 4") == Verdict.OPEN
    assert verdict(made, "convolved: more passes on") == Verdict.HOLDS
    assert verdict(made, "More passes on between module and attention") == Verdict.HOLDS
    turned = claims([encoder(5), encoder(1, pair=3.0)])
    assert verdict(turned, "More passes on between module and attention") == Verdict.FAILS


def test_layers_and_blanks_are_chosen_on_speakers_held_back() -> None:
    found = encoder(1, plain=4, **{"3": 2})
    assert best(found, study.MEAN) == study.of_choice(study.MEAN, 2, 0.5)
    assert blank_way(found, best(found, study.PUBLISHED)) == "a blank from 2 frames"
    other = {t: {w: heard(*[t.layer] * ITEMS) for w in study.WAYS} for t in found.tuned}
    assert best(replace(found, tuned=other), study.MEAN).layer == 1


def test_shares_of_the_same_windows_are_told_apart() -> None:
    sums = [1.0, 2.0, 3.0, 4.0, 5.0]
    others = [3 * one + 1 for one in sums]
    more, less = [0.5 * one for one in sums], [0.2 * one for one in others]
    found = apart((more, sums), (less, others))
    assert found.value == pytest.approx(30)
    assert (found.low, found.high) == pytest.approx((30, 30))
