"""What is searched: combinations of values of a profile's fields, whichever it has."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from service.errors import ConfigError
from service.profiles import POOLS, Profile

Value = str | int | float | bool
Grid = Mapping[str, Sequence[Value]]

GRID = "grid"  # tables of a space file
# Of what the default space is made. Layers come from the model's depth.
THIRD, TWO_THIRDS = 0.3333, 0.6667
SPARSITIES = (0.4, 0.5, 0.6, TWO_THIRDS)
PADDING = 8  # frames (docs/adr/0009)
REACH = 250  # frames on either side: 5 s (docs/adr/0011)
# What a field says in a candidate's name: a number needs its field, a word says it by itself.
SHORT = {"sparsity": "s"}
# The fields of which `plain` knows when they have no effect.
UNDERSTOOD = {
    *("layer", "sparsity", "pool", "selection", "aggregation", "within"),
    *("late", "padding", "low_rank", "bits", "gates"),
}


def choice_fields() -> tuple[Field[Any], ...]:
    """The fields of a profile that can be varied: all but its name."""
    return tuple(field for field in fields(Profile) if field.name != "name")


@dataclass(frozen=True, slots=True)
class Space:
    """`candidates` have names of their own. Left out: `refused` combinations that make no profile
    of this model, and those, `repeated`, that do what another does."""

    candidates: tuple[Profile, ...]
    refused: int = 0
    repeated: int = 0


def default_grids(num_layers: int) -> list[Grid]:
    """Some dozens of candidates for an encoder of so many layers: what has been found to hold
    somewhere, and what it has to beat."""
    depths = {1, 2, 3, num_layers // 4, num_layers // 2}
    layers = sorted(depth for depth in depths if 1 <= depth < max(2, num_layers))
    return [
        {"layer": layers, "sparsity": SPARSITIES, "pool": ["mean"]},
        # Other ways to average, where a profile has some.
        {"layer": layers, "sparsity": [0.5, 0.6], "pool": sorted({*POOLS} - {"drop", "mean"})},
        {"layer": layers, "sparsity": [0.5], "selection": ["stride"]},
        {"layer": layers, "sparsity": [0.5], "aggregation": ["max"], "within": [2]},
        {"layer": layers, "sparsity": [TWO_THIRDS], "aggregation": ["max"], "within": [3]},
        {"layer": layers, "sparsity": [0.5], "pool": ["mean"], "late": [THIRD]},
        {"late": [0.5], "pool": ["mean", "drop"]},
        {"padding": [PADDING]},
        {"layer": [0, *layers], "sparsity": [0.5], "pool": ["mean"], "padding": [PADDING]},
        # As the built-in ones are: the layers before the thinning look around them.
        {
            **{"layer": layers[:2], "sparsity": [0.5, 0.6], "pool": ["mean", "alike"]},
            **{"padding": [PADDING], "reach": [REACH]},
        },
        # Early Attentive Sparsification as published.
        {"layer": [min(2, num_layers)], "sparsity": [0.5]},
    ]


def read_space(path: Path) -> list[Grid]:
    """The grids of a TOML file: fields with lists of values, at the top or in tables [[grid]].

    Raises ConfigError for a file that cannot be read, an unknown field, or what is no value.
    """
    try:
        found = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"space {path}: {error}") from error
    tables = found.pop(GRID, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"space {path}: use tables like [[{GRID}]]")
    grids = [_grid(path, table) for table in ([found] if found else []) + tables]
    if not grids:
        raise ConfigError(f"space {path}: it has no field of a profile, as layer = [1, 2]")
    return grids


def _grid(path: Path, table: Mapping[str, Any]) -> Grid:
    valid = [field.name for field in choice_fields()]
    if unknown := sorted(set(table) - set(valid)):
        raise ConfigError(
            f"space {path}: unknown field {', '.join(unknown)}; use {', '.join(valid)}"
        )
    grid = {name: value if isinstance(value, list) else [value] for name, value in table.items()}
    for name, values in grid.items():
        if not values or not all(isinstance(value, Value) for value in values):
            raise ConfigError(f"space {path}: {name} must be a value or a list of values")
    return grid


def parse_values(field: str, text: str) -> list[Value]:
    """`1,2,3` or `mean,max` as typed, a theta as text, `none` for none. Raises ConfigError where
    there is nothing."""
    read = _theta if field == "low_rank" else _value
    values = [read(part.strip()) for part in text.split(",") if part.strip()]
    if not values:
        raise ConfigError(f"--{field} {text!r}: use values by commas")
    return values


def _theta(text: str) -> Value:
    return "" if text == "none" else text


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def make_space(grids: Iterable[Grid], num_layers: int) -> Space:
    """Every combination of every grid that makes a profile of an encoder of so many layers.

    Raises ConfigError, with what a profile says of one of them, where none does.
    """
    found: dict[Profile, None] = {}
    refused = repeated = 0
    reason = "every one of them drops nothing"
    for choices in (combination for grid in grids for combination in _combinations(grid)):
        try:
            profile = plain(Profile("candidate", **choices))
        except ConfigError as error:
            refused, reason = refused + 1, str(error)
            continue
        if profile.is_dense or (profile.sparsity and profile.layer > num_layers):
            refused += 1
        elif profile in found:
            repeated += 1
        else:
            found[profile] = None
    if not found:
        raise ConfigError(f"nothing to search: no combination makes a profile; {reason}")
    return Space(tuple(_named(list(found))), refused, repeated)


def _combinations(grid: Grid) -> Iterator[dict[str, Any]]:
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def plain(profile: Profile) -> Profile:
    """With the default of each field that has no effect: profiles that do the same are equal.

    What has a field that is not known here is left as it is.
    """
    if not set(choices_of(profile)) <= UNDERSTOOD:
        return profile
    if not profile.sparsity:
        profile = replace(profile, layer=1, selection="attention", aggregation="mean", within=0)
        if not profile.late:
            profile = replace(profile, pool="drop")
    if profile.selection != "attention":
        profile = replace(profile, aggregation="mean")
    return profile


def choices_of(profile: Profile) -> dict[str, Value]:
    """The fields that differ from their defaults."""
    return {
        field.name: getattr(profile, field.name)
        for field in choice_fields()
        if field.default is MISSING or getattr(profile, field.name) != field.default
    }


def _named(profiles: Sequence[Profile]) -> Iterator[Profile]:
    """`layer2-s0.5-mean`: each by what it is, none like another."""
    taken: set[str] = set()
    for profile in profiles:
        # Where these matter they are said: they may be the default ones.
        said: dict[str, Value] = {"layer": profile.layer} if profile.sparsity else {}
        if profile.sparsity and profile.pool == "drop":
            said |= {"sparsity": profile.sparsity, "selection": profile.selection}
        name = "-".join(_said(*each) for each in {**said, **choices_of(profile)}.items())
        name = unique = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:58]
        while unique in taken:
            unique = f"{name}-{len(taken)}"
        taken.add(unique)
        yield replace(profile, name=unique)


def _said(field: str, value: Value) -> str:
    if isinstance(value, bool):
        return field if value else f"no-{field}"
    return value if isinstance(value, str) else f"{SHORT.get(field, field)}{value:g}"
