"""Few bits by kind of module: what is rounded is what was asked for, and claims follow figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from service.cli import OK, main
from service.families.whisper import Whisper
from service.lab.reproduce.bits import report, study
from service.lab.reproduce.bits.rounding import (
    ATTENTION,
    KINDS,
    STEM,
    Bits,
    num_weights,
    round_rows,
    rounded,
)
from service.lab.reproduce.bits.study import Moved, Screen
from service.lab.reproduce.claim import Verdict
from service.model.operators.products import Dense
from service.model.weights import Weights
from tests.checkpoints import load_plain
from tests.lab.recordings import corpus, item, tone


@pytest.fixture(scope="module")
def model(mini_folder: Path) -> Whisper:
    return Whisper(load_plain(str(mini_folder)))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (4, 0), (4, 64), (2, 32)])
def test_rows_have_as_many_values_as_their_bits_allow(bits: int, group: int) -> None:
    x = drawn(5, 128)
    found = round_rows(x, bits, group)
    width = group or 128
    for row, right in zip(found.view(-1, width), x.view(-1, width), strict=True):
        step = right.abs().max() / (2 ** (bits - 1) - 1)
        whole = row / step
        assert torch.allclose(whole, whole.round(), atol=1e-3)
        assert (row - right).abs().max() <= step / 2 + 1e-6
        assert row.abs().max() == pytest.approx(float(right.abs().max()), rel=1e-6)
    with pytest.raises(ValueError, match="no whole groups of 48"):
        round_rows(x, bits, 48)


def test_a_row_of_zeros_stays_one() -> None:
    assert round_rows(torch.zeros(2, 8), 4).eq(0).all()


def tensors(weights: object, at: str = "") -> dict[str, Tensor]:
    """Every tensor of a model, by where it is."""
    if isinstance(weights, Tensor):
        return {at: weights}
    if isinstance(weights, tuple):
        parts = {f"{at}.{n}": part for n, part in enumerate(weights)}
    elif is_dataclass(weights):
        parts = {f"{at}.{f.name}": getattr(weights, f.name) for f in fields(weights)}
    else:
        return {}
    return {k: v for where, part in parts.items() for k, v in tensors(part, where).items()}


PARTS = {
    "stem": (".encoder.conv",),
    "attention": (".encoder.layers.0.attention.", ".encoder.layers.1.attention."),
    "feed-forward": (".encoder.layers.0.mlp.", ".encoder.layers.1.mlp."),
    "decoder": (".decoder.layers.",),
    "embedding": (".decoder.embedding_VD", ".decoder.logits"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_kind_all_weights_are_rounded_and_no_others(model: Whisper, kind: str) -> None:
    weights: Weights = model.checkpoint.weights
    before, after = tensors(weights), tensors(rounded(weights, Bits((kind,), 4)))
    assert before.keys() == after.keys()
    changed = {at for at in before if not torch.equal(before[at], after[at])}
    matrices = {
        at
        for at, tensor in before.items()
        if at.startswith(PARTS[kind]) and tensor.dim() > 1 and "positions" not in at
    }
    assert changed == matrices
    assert matrices
    assert num_weights(weights, kind) == sum(
        before[at].numel() for at in matrices if not at.endswith("embedding_VD")
    )


def test_activations_are_rounded_too(model: Whisper) -> None:
    weights = rounded(model.checkpoint.weights, Bits((ATTENTION,), 8, activations=4))
    product = weights.encoder.layers[0].attention.out
    plain = rounded(model.checkpoint.weights, Bits((ATTENTION,), 8)).encoder.layers[0].attention.out
    x = drawn(3, 128)
    assert torch.equal(product(x), plain(round_rows(x, 4)))
    assert isinstance(weights.encoder.layers[0].mlp.up, Dense)


def test_more_bits_move_less_and_nothing_moves_nothing(model: Whisper) -> None:
    items = [item("a", "", tone(440, 3)), item("b", "", tone(700, 2))]
    screen = Screen(model, items)
    eight, four = (screen.moved(Bits(KINDS, width)) for width in (8, 4))
    assert 0 < sum(eight.divergence) < sum(four.divergence)
    assert sum(eight.flips) <= sum(four.flips)
    assert eight.tokens == four.tokens
    nothing = screen.moved(Bits((), 4))
    assert sum(nothing.divergence) == pytest.approx(0, abs=1e-4)
    assert sum(nothing.flips) == 0


def moved(*divergence: float) -> Moved:
    return Moved(divergence, (10,) * len(divergence), (0,) * len(divergence))


def found_with(
    both: Sequence[float], stem: Sequence[float], attention: Sequence[float]
) -> list[str]:
    every = {bits: moved(*[1.0] * len(both)) for bits in study.variants()}
    for width, group in ((8, 0), (4, 0), (4, 64)):
        every[Bits((STEM,), width, group)] = moved(*stem)
        every[Bits((ATTENTION,), width, group)] = moved(*attention)
        every[Bits((STEM, ATTENTION), width, group)] = moved(*both)
    claims = report.claims(report.Found(every, [], dict.fromkeys(KINDS, 1)))
    return [claim.verdict for claim in claims]


def test_verdicts_follow_the_figures() -> None:
    high, low = (5.0, 5.1, 5.2, 5.0, 5.1), (1.0, 1.1, 1.0, 1.2, 1.0)
    much, little = tuple(9.0 for _ in high), tuple(4.0 for _ in high)
    assert found_with(much, high, low)[:4] == [Verdict.HOLDS] * 4
    assert found_with(little, low, high)[:4] == [Verdict.FAILS] * 4
    unsure = (0.0, 9.0, 0.0, 9.0, 5.0)
    assert found_with(unsure, low, low)[2] == Verdict.OPEN
    assert found_with(much[:4], high[:4], low[:4])[:4] == [Verdict.OPEN] * 4  # too few


def test_the_command_goes_on_where_it_was_stopped(
    mini_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = [Bits((STEM,), 4), Bits(KINDS, 8)]
    monkeypatch.setattr(study, "worth_reading", lambda: few)
    recordings, out = corpus(tmp_path / "corpus"), tmp_path / "out"
    command = ["reproduce", "bits", "--model", str(mini_folder), "--corpus", str(recordings)]
    command += ["--domains", "read", "--limit", "2", "--screen", "1", "--out", str(out)]
    assert main(command) == OK
    said = capsys.readouterr().out
    assert "Rounding stem and attention to 4 bits costs more" in said
    whole = json.loads((out / "report.json").read_text())
    assert len(whole["moved"]) == len(study.variants())
    assert [one["variant"] for one in whole["read"]] == ["dense", *(bits.name for bits in few)]
    assert whole["weights"]["stem"] > 0
    page = (out / "report.html").read_text()
    assert "stem + attention: 4 bits" in page
    assert str(tmp_path) not in page

    def never(*_: object) -> None:
        raise AssertionError("once more")

    monkeypatch.setattr(Screen, "__init__", never)
    monkeypatch.setattr(study, "Service", never)
    assert main(command) == OK
    assert json.loads((out / "report.json").read_text())["moved"] == whole["moved"]
