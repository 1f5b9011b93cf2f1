"""Encoders side by side: every kind of weights, with what it holds, on random weights."""

from __future__ import annotations

import sys

import pytest

from bench.encoders import main


def test_every_kind_of_weights_has_its_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--shape", "mini", "--rank", "16", "--rounds", "1", "--dtype", "float32"]
    monkeypatch.setattr(sys, "argv", ["bench.encoders", *arguments])
    main()
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    shown = [row for row in rows if len(row) == 6 and row[0] != "profile"]
    found = {row[0]: [float(cell) for cell in row[1:4]] for row in shown}
    assert list(found) == [
        *("dense", "4bits", "factors", "factors-4bits"),
        *("half", "half-4bits", "half-factors", "half-factors-4bits"),
    ]
    # Two layers of 12 x 128 x 128, and of rank 16 what the two sides of each product have.
    whole, factors = 2 * 12 * 128**2 / 1e6, 2 * 16 * (4 * 256 + 2 * 640) / 1e6
    assert [found[name][0] for name in ("dense", "factors")] == [
        pytest.approx(number, abs=0.05) for number in (whole, factors)
    ]
    assert found["dense"][1] == pytest.approx(4 * whole, abs=0.05)
    assert found["4bits"][1] == pytest.approx(9 / 16 * whole, abs=0.05)
    assert found["factors"][2] < found["dense"][2]
    assert found["half"][2] < found["dense"][2]
