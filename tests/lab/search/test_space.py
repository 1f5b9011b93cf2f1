from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from service.errors import ConfigError
from service.lab.search.space import (
    Grid,
    choice_fields,
    choices_of,
    default_grids,
    make_space,
    parse_values,
    plain,
    read_space,
)
from service.profiles import NAME, Profile, check_depth


def test_every_combination_that_makes_a_profile() -> None:
    grid: Grid = {"layer": [1, 2], "sparsity": [0.5], "pool": ["mean", "drop"], "within": [0, 2]}
    space = make_space([grid], 6)
    assert [p.name for p in space.candidates] == [
        "layer1-s0.5-mean",
        "layer1-s0.5-attention",
        "layer1-s0.5-attention-within2",
        "layer2-s0.5-mean",
        "layer2-s0.5-attention",
        "layer2-s0.5-attention-within2",
    ]
    assert space.candidates[2] == Profile("layer1-s0.5-attention-within2", 1, 0.5, within=2)
    assert (space.refused, space.repeated) == (2, 0)  # means of neighbours that compete


def test_layers_that_the_model_has_not_are_left_out() -> None:
    space = make_space([{"layer": [2, 3], "sparsity": [0.5]}], 2)
    assert [p.layer for p in space.candidates] == [2]
    assert space.refused == 1


def test_what_does_the_same_is_tried_once() -> None:
    stride: Grid = {"sparsity": [0.5], "selection": ["stride"], "aggregation": ["mean", "max"]}
    late: Grid = {"layer": [1, 2], "sparsity": [0], "late": [0.5], "pool": ["mean"]}
    padding: Grid = {"padding": [8], "pool": ["mean", "drop"]}
    space = make_space([stride, late, padding, stride], 4)
    assert [p.name for p in space.candidates] == ["layer1-s0.5-stride", "mean-late0.5", "padding8"]
    assert space.repeated == 5


def test_names_are_told_apart_and_are_names_of_profiles() -> None:
    space = make_space([{"sparsity": [0.5, 0.50000001, 0.5 + 1e-12]}], 4)
    names = [p.name for p in space.candidates]
    assert len(set(names)) == 3
    assert all(NAME.fullmatch(name) for name in names)


@pytest.mark.parametrize("num_layers", [1, 2, 4, 6, 12, 24, 32])
def test_the_default_is_some_dozens_that_the_model_takes(num_layers: int) -> None:
    space = make_space(default_grids(num_layers), num_layers)
    check_depth({p.name: p for p in space.candidates}, num_layers)
    assert 8 <= len(space.candidates) <= 72
    assert space.refused == space.repeated == 0
    assert any(choices_of(p) == {"layer": 2, "sparsity": 0.5} for p in space.candidates) or (
        num_layers < 2
    )


def test_every_field_of_a_profile_can_be_varied() -> None:
    assert [f.name for f in choice_fields()] == [f.name for f in fields(Profile)][1:]
    every = Profile("p", 2, 0.5, "max", "energy", 3, "drop", 0.25)
    assert Profile("p", **choices_of(every)) == every  # type: ignore[arg-type]


def test_a_profile_that_was_made_plain_does_the_same() -> None:
    assert plain(Profile("p", 3, late=0.5)) == Profile("p", late=0.5)
    assert plain(Profile("p", 3, 0.5, "max")) == Profile("p", 3, 0.5, "max")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1, 2", [1, 2]),
        ("0.5", [0.5]),
        ("mean,max", ["mean", "max"]),
        ("true,auto", [True, "auto"]),
    ],
)
def test_values_as_typed(text: str, values: list[object]) -> None:
    assert parse_values("field", text) == values
    assert [type(value) for value in parse_values("field", text)] == [type(v) for v in values]


def test_a_theta_is_text_and_none_is_none() -> None:
    assert parse_values("low_rank", "none, accurate,0.95") == ["", "accurate", "0.95"]
    space = make_space([{"bits": [0, 4], "low_rank": ["", "0.95"], "gates": [0, 0.1]}], 6)
    assert [p.name for p in space.candidates] == [
        *("gates0.1", "0.95", "0.95-gates0.1"),
        *("bits4", "bits4-gates0.1", "0.95-bits4", "0.95-bits4-gates0.1"),
    ]
    assert space.refused == 1  # dense itself


def test_a_file_of_grids(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text("layer = [1, 2]\nsparsity = 0.5\n[[grid]]\nlate = [0.5]\n[[grid]]\npadding = 8")
    assert read_space(file) == [
        {"layer": [1, 2], "sparsity": [0.5]},
        {"late": [0.5]},
        {"padding": [8]},
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it has no field of a profile"),
        ("depth = [1]", "unknown field depth; use layer, sparsity"),
        ("name = ['a']", "unknown field name"),
        ("layer = []", "layer must be a value or a list of values"),
        ("layer = [[1]]", "layer must be a value"),
        ("grid = 1", r"use tables like \[\[grid\]\]"),
        ("layer = ", "space"),
    ],
)
def test_a_space_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "space.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_space(file)


def test_nothing_to_search() -> None:
    with pytest.raises(ConfigError, match=r"nothing to search: .* drops nothing"):
        make_space([{"sparsity": [0]}], 4)
    with pytest.raises(ConfigError, match=r"nothing to search: .*pool must be one of"):
        make_space([{"sparsity": [0.5], "pool": ["max"]}], 4)
    with pytest.raises(ConfigError, match="--layer ' , ': use values"):
        parse_values("layer", " , ")
