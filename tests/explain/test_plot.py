from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.errors import ConfigError
from service.explain.explanation import explain
from service.explain.plot import to_png
from service.explain.plot_text import lines_of, marked, plain
from service.explain.raster import COLOURS, Pixels, row_pixels
from service.explain.rows import Row

from .made import PAIRS, halves, kept_of, one_window, pairs, reading, transcript, window


def _rgb(name: str) -> list[int]:
    return list(bytes.fromhex(COLOURS[name][1:]))


def seen(path: Path) -> Pixels:
    """The picture's pixels, (height, width, 3)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_png_with_every_window_on_pages_of_four(tmp_path: Path) -> None:
    readings = [reading(window(2 * i, 2, index=i), pairs()) for i in range(5)]
    ours = transcript((" $x_1$", 1, 2), readings=readings)
    made = explain("a.wav", PAIRS, ours, transcript((" no", 1, 2)))
    written = to_png(made, tmp_path / "a.png")
    assert [path.name for path in written] == ["a.png", "a-2.png"]
    first, second = (seen(path) for path in written)
    assert first.shape[1] == second.shape[1] == 1265
    assert first.shape[0] > 3 * second.shape[0]
    colours = first.reshape(-1, 3)
    for name in ("paper", "merged"):
        assert (np.abs(colours - np.array(_rgb(name))).max(axis=1) < 12).any()


def test_an_empty_recording_says_so(tmp_path: Path) -> None:
    (written,) = to_png(explain("a", PAIRS, transcript(), transcript()), tmp_path / "a.png")
    assert seen(written).shape[0] < 200


def test_without_matplotlib_one_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        to_png(one_window([], []), tmp_path / "a.png")


def test_pixels_show_what_became_of_each_frame() -> None:
    """Four pixels a frame: kept, kept, two merged, dropped, kept."""
    pane = one_window([], [], kept_of([0, 1, 2, 5], [1, 1, 2, 1])).panes[0]
    pixels = row_pixels(pane, Row(0, 6), 24, 20, 3, 10)
    assert pixels.shape == (20 + 4 + 3 + 4 + 10, 24, 3)
    line = pixels[25].tolist()
    expected = "kkk-kkk-mmmmmmm-ddddkkkk"
    names = {"k": "kept", "m": "merged", "d": "dropped", "-": "paper"}
    assert line == [_rgb(names[letter]) for letter in expected]
    tint = np.array(_rgb("tint"))
    seen = np.abs(pixels[:20].astype(int) - tint).sum(axis=(0, 2))
    assert seen[16:20].max() < 0.2 * seen[:16].min()  # the veil


def test_lines_break_before_they_are_too_wide() -> None:
    lines = lines_of(plain("a few words that go on and on for a while"), 1.0)
    assert len(lines) > 2
    assert all(sum(run.width_in for run in line) <= 1.0 for line in lines)
    assert "".join(run.text for line in lines for run in line).replace(" ", "") == (
        "afewwordsthatgoonandonforawhile"
    )
    assert len(lines_of(plain("Donaudampfschifffahrtsgesellschaft"), 0.5)) == 1


def test_an_added_word_is_known_without_colours() -> None:
    made = one_window([(" red", 1, 2), (" cats", 2, 3)], [(" cats", 2, 3)], halves())
    assert [run.text for run in marked(made.panes[0].words)] == [" +red", " cats"]
    assert [run.text for run in marked(())] == ["(nothing)"]
