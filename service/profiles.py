"""Speed profiles: named, frozen choices of how much of the audio the model looks at."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from service.errors import ConfigError

AGGREGATIONS = ("mean", "max", "min", "median")
SELECTIONS = ("attention", "stride", "energy", "random")
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Profile:
    """How one window is winnowed.

    `layer` encoder layers run densely before the drop (1-based), then `sparsity` of the frames
    is dropped (0 <= s < 1; 0 drops nothing). `selection` says where the scores come from, and
    `aggregation` how attention heads are combined (arXiv 2506.15912).
    """

    name: str
    layer: int = 1
    sparsity: float = 0.0
    aggregation: str = "mean"
    selection: str = "attention"

    def __post_init__(self) -> None:
        """Raises ConfigError naming the field and what would be right."""
        # It becomes a metric label and, after an '@', part of a model's id in URLs.
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"profile name {self.name!r}: use 1 to 64 of A-Z, a-z, 0-9, '-', '_' and '.'"
            )
        if not _is_int(self.layer) or self.layer < 1:
            raise ConfigError(f"profile {self.name}: layer must be an integer >= 1")
        if not _is_number(self.sparsity) or not 0 <= self.sparsity < 1:
            raise ConfigError(f"profile {self.name}: sparsity must be a number, 0 <= s < 1")
        for field, valid in (("aggregation", AGGREGATIONS), ("selection", SELECTIONS)):
            if getattr(self, field) not in valid:
                raise ConfigError(f"profile {self.name}: {field} must be one of {', '.join(valid)}")

    @property
    def is_dense(self) -> bool:
        return self.sparsity == 0

    @property
    def description(self) -> str:
        """One sentence for people, as `GET /profiles` shows it."""
        if self.is_dense:
            return "Every frame goes through the whole model."
        kept = {
            "attention": f"those that it attends to most ({self.aggregation} of its heads)",
            "stride": "every n-th",
            "energy": "the loudest",
            "random": "some at random",
        }[self.selection]
        where = f"after encoder layer {self.layer}"
        return f"Drops {self.sparsity:.0%} of the frames {where}, and keeps {kept}."


BUILT_IN: Mapping[str, Profile] = MappingProxyType(
    {
        p.name: p
        for p in (
            Profile("dense"),
            Profile("balanced", layer=2, sparsity=0.5),
            Profile("fast", layer=1, sparsity=0.6),
        )
    }
)


def load_profiles(path: Path | None) -> Mapping[str, Profile]:
    """The built-in profiles and those of a TOML file: one `[name]` table each.

    Raises ConfigError for a file that cannot be read, an unknown key or a value out of range.
    """
    if path is None:
        return BUILT_IN
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"profiles file {path}: {error}") from error
    own = {name: _from_table(name, table) for name, table in tables.items()}
    return MappingProxyType({**BUILT_IN, **own})


def _from_table(name: str, table: Any) -> Profile:
    valid = [f.name for f in fields(Profile) if f.name != "name"]
    if not isinstance(table, dict):
        raise ConfigError(f"profiles file: {name!r} must be a table like [{name}]")
    if unknown := sorted(set(table) - set(valid)):
        raise ConfigError(
            f"profile {name}: unknown key {', '.join(unknown)}; valid keys: {', '.join(valid)}"
        )
    if name == "dense" and table.get("sparsity", 0) != 0:
        raise ConfigError("profile dense: it drops nothing by definition; choose another name")
    return Profile(name, **table)


def check_depth(profiles: Mapping[str, Profile], num_layers: int) -> None:
    """Raises ConfigError if a profile prunes after a layer that the encoder does not have."""
    for profile in profiles.values():
        if not profile.is_dense and profile.layer > num_layers:
            raise ConfigError(
                f"profile {profile.name}: layer {profile.layer}, but the model has {num_layers} "
                f"encoder layers; use 1 to {num_layers}"
            )
