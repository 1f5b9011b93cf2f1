"""Profiles: the built-in ones, a file of further ones, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.errors import ConfigError
from service.profiles import BUILT_IN, Profile, canonical_name, check_depth, load_profiles


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "profiles.toml"
    path.write_text(text)
    return path


def test_the_built_in_profiles() -> None:
    names = ["dense", "balanced", "fast", "turbo", "clips", "eas-published"]
    assert list(load_profiles(None)) == names
    assert [name for name, p in BUILT_IN.items() if p.is_dense] == ["dense"]
    assert BUILT_IN["eas-published"] == Profile("eas-published", layer=2, sparsity=0.5)


def test_a_file_adds_profiles_and_may_change_a_built_in_one(tmp_path: Path) -> None:
    profiles = load_profiles(
        _file(tmp_path, "[mine]\nlayer = 3\nsparsity = 0.7\n[fast]\nsparsity = 0.4\n")
    )
    assert list(profiles) == [*BUILT_IN, "mine"]
    assert profiles["mine"] == Profile("mine", layer=3, sparsity=0.7)
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
        ("[a]\nlayer = 0", "layer must be an integer >= 1, or 0 with pool = 'mean'"),
        ("[a]\nlayer = 0\npool = 'alike'", "layer must be"),
        ("[a]\nlayer = -1\npool = 'mean'", "layer must be"),
        ("[a]\nlayer = 1.5", "layer must be"),
        ("[a]\nlayer = true", "layer must be"),
        ("[a]\naggregation = 'sum'", "aggregation must be one of mean, max, min, median"),
        ("[a]\naggregation = ['max']", "aggregation must be one of"),
        ("[a]\nselection = 'loud'", "selection must be one of attention, stride, energy, random"),
        ("[a]\nlate = 1.0", "late must be a number, 0 <= s < 1"),
        ("[a]\nlate = true", "late must be"),
        ("[a]\nwithin = 1", "within must be an integer >= 2, or 0 for all frames"),
        ("[a]\nwithin = -2", "within must be"),
        ("[a]\nwithin = 2.0", "within must be"),
        ("[a]\nwithin = false", "within must be"),
        ("[a]\npadding = 1", "padding must be an integer >= 2, or 0 to leave it as it is"),
        ("[a]\npadding = -8", "padding must be"),
        ("[a]\npadding = 8.0", "padding must be"),
        ("[a]\npadding = true", "padding must be"),
        ("[a]\npadding = 8\nsparsity = 0.5", "padding goes with pool = 'mean'"),
        ("[a]\npadding = 8\nlate = 0.5", "padding goes with pool = 'mean' or 'alike'"),
        ("[a]\npool = 'max'", "pool must be one of drop, mean, alike"),
        ("[a]\npool = 'mean'\nwithin = 2", "averages neighbours .* leave out selection"),
        ("[a]\npool = 'mean'\naggregation = 'max'", "averages neighbours and chooses none"),
        ("[a]\npool = 'mean'\nselection = 'stride'", "averages neighbours and chooses none"),
        ("[a]\nreach = 1", "reach must be an integer >= 2, or 0 for all"),
        ("[a]\nreach = 9\nsparsity = 0.5", "reach goes with pool = 'mean' or 'alike'"),
        ("[a]\nreach = 9\nsparsity = 0.5\nlayer = 0\npool = 'mean'", "layer = 0 has none"),
        ("[dense]\nreach = 9", "dense: by definition it drops nothing"),
        ("[dense]\nbits = 4", "dense: by definition it drops nothing"),
        ("[dense]\ngates = 0.3", "dense: by definition it drops nothing"),
        ("[dense]\nlow_rank = 'fast'", "dense: by definition it drops nothing"),
        ("[a]\nbits = 3", "bits must be 8 or 4, or 0 for the model's own weights"),
        ("[a]\nbits = true", "bits must be"),
        ("[a]\nbits = 4.0", "bits must be"),
        ("[a]\nlow_rank = 0.99", "low_rank must name a theta, as 'accurate'"),
        ("[a]\ngates = 1", "gates must be a number, 0 <= s < 1"),
        ("[a]\ngates = '0.3'", "gates must be a number"),
        ("[a]\npool = 'alike'\nwithin = 2", "pool = 'alike' averages neighbours and chooses none"),
        (
            "[a]\npool = 'alike'\nsparsity = 0.5\nlate = 0.5",
            "late goes with pool = 'drop' or 'mean'",
        ),
        ("[a]\nselection = 'stride'\nwithin = 2", "every n-th frame of all; leave out within"),
        ("['a@b']", "profile name 'a@b'"),
        ("['']", "profile name ''"),
        ("['ä']", "profile name"),
        (f"[{'a' * 65}]", "1 to 64"),
        ("[dense]\nsparsity = 0.5", "dense: by definition it drops nothing"),
        ("[dense]\nlate = 0.5", "dense: by definition it drops nothing"),
        ("[dense]\npadding = 8", "dense: by definition it drops nothing"),
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


def test_the_depth_of_a_profile_that_drops_nothing_there_does_not_matter() -> None:
    check_depth({"dense": Profile("dense", layer=9), "late": Profile("late", layer=9, late=0.5)}, 1)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("whisper-base", "whisper-base"),
        ("base", "whisper-base"),
        ("openai/whisper-base", "whisper-base"),
        ("Systran/faster-whisper-base", "whisper-base"),
        ("/models/whisper-tiny.en/", "whisper-tiny.en"),
        ("/models/tiny.en.pt", "whisper-tiny.en"),
        ("deepdml/faster-whisper-large-v3-turbo-ct2", "whisper-large-v3-turbo-ct2"),
        ("embedded", "whisper-embedded"),
        ("", "whisper-"),
    ],
)
def test_a_model_has_one_name_however_it_is_asked_for(model: str, name: str) -> None:
    assert canonical_name(model) == name


def test_a_built_in_may_differ_by_model_and_a_file_of_ones_own_goes_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whisper-base.toml").write_text("[fast]\nlayer = 2\nsparsity = 0.25\n")
    monkeypatch.setattr("service.profiles.SHIPPED", tmp_path)
    shipped = load_profiles(None, "openai/whisper-base")
    assert shipped == {**BUILT_IN, "fast": Profile("fast", 2, 0.25)}
    assert list(shipped) == list(BUILT_IN)
    assert load_profiles(None, "openai/whisper-small") == BUILT_IN
    own = _file(tmp_path, "[fast]\nsparsity = 0.1\n")
    assert load_profiles(own, "base")["fast"] == Profile("fast", 1, 0.1)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({}, "Every frame goes through the whole model."),
        ({"pool": "mean"}, "Every frame goes through the whole model."),
        (
            {"sparsity": 0.4, "layer": 2},
            "Drops 40% of the frames after encoder layer 2, and keeps those that it attends to "
            "most (mean of its heads).",
        ),
        (
            {"sparsity": 0.125, "aggregation": "max", "within": 4},
            "Drops 12.5% of the frames after encoder layer 1, and keeps, of every 4 neighbours, "
            "those that it attends to most (max of its heads).",
        ),
        (
            {"sparsity": 0.4, "selection": "stride", "late": 0.5},
            "Drops 40% of the frames after encoder layer 1, and keeps every n-th. "
            "Drops 50% of those left after the last encoder layer, and keeps every n-th for the "
            "decoder.",
        ),
        (
            {"sparsity": 0.4, "selection": "energy"},
            "Drops 40% of the frames after encoder layer 1, and keeps the loudest.",
        ),
        (
            {"sparsity": 0.4, "selection": "random", "within": 9},
            "Drops 40% of the frames after encoder layer 1, and keeps, of every 9 neighbours, "
            "some at random.",
        ),
        (
            {"sparsity": 2 / 3, "layer": 3, "pool": "mean"},
            "Averages neighbouring frames after encoder layer 3, which leaves 66.7% fewer.",
        ),
        (
            {"sparsity": 0.5, "pool": "mean", "late": 0.5},
            "Averages neighbouring frames after encoder layer 1, which leaves 50% fewer. "
            "Averages again after the last encoder layer, which leaves 50% fewer for the decoder.",
        ),
        (
            {"reach": 50, "sparsity": 0.5, "pool": "mean"},
            "In encoder layer 1 attention reaches 1 s to either side. Averages neighbouring frames "
            "after encoder layer 1, which leaves 50% fewer.",
        ),
        ({"reach": 125}, "In every encoder layer attention reaches 2.5 s to either side."),
        (
            {"reach": 50, "sparsity": 0.5, "layer": 2, "pool": "alike"},
            "In encoder layers 1 to 2 attention reaches 1 s to either side. Averages the "
            "neighbours most alike after encoder layer 2, which leaves 50% fewer.",
        ),
        (
            {"sparsity": 0.5, "layer": 0, "pool": "mean"},
            "Averages neighbouring frames before the encoder's layers, which leaves 50% fewer.",
        ),
        (
            {"sparsity": 0.5, "layer": 2, "pool": "alike"},
            "Averages the neighbours most alike after encoder layer 2, which leaves 50% fewer.",
        ),
        (
            {"late": 0.5},
            "Drops 50% of the frames after the last encoder layer, and keeps every n-th for the "
            "decoder.",
        ),
        (
            {"late": 0.5, "pool": "mean"},
            "Averages neighbouring frames after the last encoder layer, which leaves 50% fewer "
            "for the decoder.",
        ),
        (
            {"padding": 8},
            "Averages the padding behind a recording, 16 frames into one. Every frame of the "
            "recording stays.",
        ),
        (
            {"padding": 4, "sparsity": 0.5, "pool": "mean"},
            "Averages the padding behind a recording, 8 frames into one. Averages neighbouring "
            "frames after encoder layer 1, which leaves 50% fewer.",
        ),
        (
            {"bits": 4},
            "Every frame is kept. The encoder's weights have 4 bits.",
        ),
        (
            {"sparsity": 0.5, "pool": "mean", "low_rank": "accurate", "gates": 0.3, "bits": 8},
            "Averages neighbouring frames after encoder layer 1, which leaves 50% fewer. The "
            "encoder's products go through fewer dimensions (accurate). The encoder's weights have "
            "8 bits. Gates switch off about 30% of the layers' modules.",
        ),
    ],
)
def test_the_description_says_what_it_does(choices: dict[str, Any], says: str) -> None:
    assert Profile("p", **choices).description == says


@pytest.mark.parametrize(
    ("choices", "pools"),
    [
        ({}, False),
        ({"pool": "mean"}, False),
        ({"sparsity": 0.5}, False),
        ({"sparsity": 0.5, "pool": "mean"}, True),
        ({"sparsity": 0.5, "pool": "alike"}, True),
        ({"reach": 9}, False),
        ({"reach": 9, "pool": "mean"}, False),
        ({"padding": 8}, True),
    ],
)
def test_a_profile_pools_where_its_states_stand_for_neighbours(
    choices: dict[str, Any], pools: bool
) -> None:
    assert Profile("p", **choices).pools is pools
