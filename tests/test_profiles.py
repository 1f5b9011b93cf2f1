"""Profiles: the built-in ones, a file of further ones, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from service.errors import ConfigError
from service.profiles import BUILT_IN, Profile, check_depth, load_profiles


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "profiles.toml"
    path.write_text(text)
    return path


def test_the_built_in_profiles() -> None:
    assert list(load_profiles(None)) == ["dense", "balanced", "fast", "eas-published"]
    assert [p.is_dense for p in BUILT_IN.values()] == [True, False, False, False]
    assert BUILT_IN["eas-published"] == Profile("eas-published", layer=2, sparsity=0.5)


def test_a_file_adds_profiles_and_may_change_a_built_in_one(tmp_path: Path) -> None:
    profiles = load_profiles(
        _file(tmp_path, "[turbo]\nlayer = 3\nsparsity = 0.7\n[fast]\nsparsity = 0.4\n")
    )
    assert list(profiles) == [*BUILT_IN, "turbo"]
    assert profiles["turbo"] == Profile("turbo", layer=3, sparsity=0.7)
    assert profiles["fast"] == Profile("fast", layer=1, sparsity=0.4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a]\nsparsty = 0.5", "unknown key sparsty; valid keys: layer, sparsity"),
        ("[a]\nname = 'b'", "unknown key name"),
        ("a = 1", r"must be a table like \[a\]"),
        ("[a]\nsparsity = 1.0", "sparsity must be a number, 0 <= s < 1"),
        ("[a]\nsparsity = -0.1", "sparsity must be"),
        ("[a]\nsparsity = nan", "sparsity must be"),
        ("[a]\nsparsity = true", "sparsity must be"),
        ("[a]\nsparsity = '0.5'", "sparsity must be"),
        ("[a]\nlayer = 0", "layer must be an integer >= 1"),
        ("[a]\nlayer = 1.5", "layer must be"),
        ("[a]\nlayer = true", "layer must be"),
        ("[a]\naggregation = 'sum'", "aggregation must be one of mean, max, min, median"),
        ("[a]\naggregation = ['max']", "aggregation must be one of"),
        ("[a]\nselection = 'loud'", "selection must be one of attention, stride, energy, random"),
        ("['a@b']", "profile name 'a@b'"),
        ("['']", "profile name ''"),
        ("['ä']", "profile name"),
        (f"[{'a' * 65}]", "1 to 64"),
        ("[dense]\nsparsity = 0.5", "dense: it drops nothing"),
        ("[a", "profiles file"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_what_would_be_right(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        load_profiles(_file(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="profiles file"):
        load_profiles(tmp_path / "none.toml")


def test_a_layer_that_the_encoder_does_not_have_is_refused() -> None:
    profiles = {"deep": Profile("deep", layer=5, sparsity=0.5)}
    check_depth(profiles, 5)
    with pytest.raises(ConfigError, match=r"deep: layer 5, but the model has 4 .* use 1 to 4"):
        check_depth(profiles, 4)


def test_the_depth_of_a_profile_that_drops_nothing_does_not_matter() -> None:
    check_depth({"dense": Profile("dense", layer=9)}, 1)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({}, "Every frame"),
        (
            {"sparsity": 0.4, "layer": 2},
            "Drops 40% of the frames after encoder layer 2, .* attends to most",
        ),
        ({"sparsity": 0.4, "selection": "stride"}, "keeps every n-th"),
        ({"sparsity": 0.4, "selection": "energy"}, "loudest"),
        ({"sparsity": 0.4, "selection": "random"}, "at random"),
    ],
)
def test_the_description_says_what_it_does(choices: dict[str, Any], says: str) -> None:
    assert re.search(says, Profile("p", **choices).description)
