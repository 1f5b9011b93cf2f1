"""Operators that no clock has chosen."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from service.config import ServerConfig
from service.families.whisper import Whisper
from service.lab.search.steady import X86, computed_by, load_steady
from service.model.operators import choose


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever times an operator fails."""

    def seconds(run: Callable[[], object]) -> float:
        raise AssertionError("timed")

    monkeypatch.setattr(choose, "_seconds", seconds)
    choose.steady_operators.cache_clear()


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16", "int8"])
def test_operators_are_the_same_at_every_start(kind: str) -> None:
    first = choose.steady_operators(kind)
    choose.steady_operators.cache_clear()
    again = choose.steady_operators(kind)
    if first is None or again is None:
        assert kind in ("int8", "bfloat16")
        assert first is again
    else:
        assert first.names == again.names
        assert first.weight_dtype == kind


def test_a_search_reads_with_them(mini_folder: Path) -> None:
    model = load_steady(ServerConfig(model=str(mini_folder), device="cpu", dtype="float32"))
    assert isinstance(model, Whisper)
    assert model.info.weight_dtype == "float32"
    assert computed_by(model.info).startswith("cpu, frames by ")


@pytest.mark.skipif(platform.machine() not in X86, reason="elsewhere a clock decides on 8 bits")
def test_the_type_is_the_same_at_every_start(mini_folder: Path) -> None:
    if choose.steady_operators("int8") is None:
        pytest.skip("nothing multiplies 8 bits rightly on this processor")
    model = load_steady(ServerConfig(model=str(mini_folder), device="cpu"))
    assert model.info.weight_dtype == "int8"
