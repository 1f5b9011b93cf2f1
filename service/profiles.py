"""Speed profiles: named, frozen choices of how much of the audio the model looks at."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from service.errors import ConfigError

AGGREGATIONS = ("mean", "max", "min", "median")
SELECTIONS = ("attention", "stride", "energy", "random")
POOLS = ("drop", "mean", "alike")
BITS = (0, 4, 8)
_CHOICES = (("aggregation", AGGREGATIONS), ("selection", SELECTIONS), ("pool", POOLS))
FRAMES_PER_S = 50
_COUNTS = (
    ("within", "for all frames"),
    ("padding", "to leave it as it is"),
    ("reach", "for all"),
)
SHIPPED = Path(__file__).parent / "assets" / "profiles"
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Profile:
    """How one window is winnowed.

    `layer` encoder layers run densely (1-based; 0 is for `mean` alone), then `sparsity` of the
    frames goes (0 <= s < 1; 0 drops nothing), and `late` of those left after the last layer, so
    that the decoder alone sees fewer.

    `pool` says what becomes of a frame that goes. With `drop`, `selection` says where the scores
    come from that choose who stays, `aggregation` how attention heads are combined
    (arXiv 2506.15912), and `within` how many neighbouring frames compete: each such
    neighbourhood keeps its share; 0 is all frames, as published. With `mean`, neighbours are
    averaged into one, and nothing is chosen. With `alike` too, but more where they are more
    alike, and a mean counts as all of its frames. The late drop chooses by no score: with `drop`
    it keeps every n-th, with `mean` it averages; it does not go with `alike`.

    `padding`: how many neighbours become one, before the first layer, of the silence that fills
    up a window behind its recording, and pairs of those after it (`model/padding.py`); 0 leaves
    it as it is. What else goes then goes from the recording's frames, by averaging alone.

    `reach`: how many states on either side a state attends to at least, in the encoder layers
    that come before the thinning (the first `layer`, all where nothing goes early); 0: to all.

    The others say by which weights, and go with all of these. `low_rank`: the encoder's products
    by the factors that `winnow compress low-rank` made with that theta, as "accurate"; "": as they
    are. `bits`: of the weights of the encoder's products, 8 or 4; 0: as the model is served.
    `gates`: the share of the layers' modules that gates were trained to switch off by
    `winnow train gates`; 0: all of them run.
    """

    name: str
    layer: int = 1
    sparsity: float = 0.0
    aggregation: str = "mean"
    selection: str = "attention"
    within: int = 0
    pool: str = "drop"
    late: float = 0.0
    padding: int = 0
    reach: int = 0
    low_rank: str = ""
    bits: int = 0
    gates: float = 0.0

    def __post_init__(self) -> None:
        """Raises ConfigError naming the field and what would be right."""
        # It becomes a metric label and, after an '@', part of a model's id in URLs.
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"profile name {self.name!r}: use 1 to 64 of A-Z, a-z, 0-9, '-', '_' and '.'"
            )
        if not _is_int(self.layer) or self.layer < (0 if self.pool == "mean" else 1):
            raise ConfigError(
                f"profile {self.name}: layer must be an integer >= 1, or 0 with pool = 'mean'"
            )
        for share in ("sparsity", "late", "gates"):
            value = getattr(self, share)
            if not _is_number(value) or not 0 <= value < 1:
                raise ConfigError(f"profile {self.name}: {share} must be a number, 0 <= s < 1")
        for count, none in _COUNTS:
            value = getattr(self, count)
            if not _is_int(value) or value < 0 or value == 1:
                raise ConfigError(
                    f"profile {self.name}: {count} must be an integer >= 2, or 0 {none}"
                )
        for field, valid in _CHOICES:
            if getattr(self, field) not in valid:
                raise ConfigError(f"profile {self.name}: {field} must be one of {', '.join(valid)}")
        self._check_weights()
        self._check_together()

    def _check_weights(self) -> None:
        if not _is_int(self.bits) or self.bits not in BITS:
            raise ConfigError(
                f"profile {self.name}: bits must be 8 or 4, or 0 for the model's own weights"
            )
        if not isinstance(self.low_rank, str):
            raise ConfigError(
                f"profile {self.name}: low_rank must name a theta, as 'accurate', or be '' for none"
            )

    def _check_together(self) -> None:
        chosen = (self.selection, self.aggregation, self.within) != ("attention", "mean", 0)
        if self.pool != "drop" and chosen:
            raise ConfigError(
                f"profile {self.name}: pool = '{self.pool}' averages neighbours and chooses none; "
                "leave out selection, aggregation and within, or use pool = 'drop'"
            )
        if self.pool == "alike" and self.late:
            raise ConfigError(
                f"profile {self.name}: late goes with pool = 'drop' or 'mean'; use one of these, "
                "or leave out late"
            )
        if self.selection == "stride" and self.within:
            raise ConfigError(
                f"profile {self.name}: selection = 'stride' takes every n-th frame of all; leave "
                "out within, or use selection = 'attention', 'energy' or 'random'"
            )
        for field in ("padding", "reach"):
            if getattr(self, field) and self.pool == "drop" and (self.sparsity or self.late):
                raise ConfigError(
                    f"profile {self.name}: {field} goes with pool = 'mean' or 'alike' where frames "
                    f"go too; use one of these, or leave out {field}"
                )
        if self.reach and self.sparsity and self.layer == 0:
            raise ConfigError(
                f"profile {self.name}: reach is of the layers before the thinning, and layer = 0 "
                "has none; leave it out, or use layer >= 1"
            )

    @property
    def is_dense(self) -> bool:
        """Whether every frame goes through the whole model as it is."""
        return not (self.sparsity or self.late or self.padding or self.reach or self.is_adapted)

    @property
    def is_adapted(self) -> bool:
        """Whether it needs more than the model's own weights."""
        return bool(self.low_rank or self.bits or self.gates)

    @property
    def pools(self) -> bool:
        """Whether a state stands for all the frames from its position to the next one's."""
        thins = self.sparsity > 0 or self.late > 0
        return self.padding > 0 or (thins and self.pool != "drop")

    def reach_of(self, layer: int) -> int:
        """How many states on either side one of a layer (1-based) attends to; 0: to all."""
        return self.reach if self.sparsity == 0 or layer <= self.layer else 0

    @property
    def description(self) -> str:
        """What it does in a sentence or two for people, as `GET /profiles` shows it."""
        if self.is_dense:
            return "Every frame goes through the whole model."
        said = [self._padding()] if self.padding else []
        if self.reach:
            said.append(self._reach())
        if self.sparsity:
            said.append(self._early())
        if self.late:
            said.append(self._late("those left" if self.sparsity else "the frames"))
        if not said:
            said.append("Every frame is kept.")
        if self.low_rank:
            said.append(f"The encoder's products go through fewer dimensions ({self.low_rank}).")
        if self.bits:
            said.append(f"The encoder's weights have {self.bits} bits.")
        if self.gates:
            said.append(f"Gates switch off about {_percent(self.gates)} of the layers' modules.")
        return " ".join(said)

    def _padding(self) -> str:
        others = "" if self.sparsity or self.late else " Every frame of the recording stays."
        return (
            f"Averages the padding behind a recording, {2 * self.padding} frames into one.{others}"
        )

    def _reach(self) -> str:
        if self.sparsity == 0:
            layers = "every encoder layer"
        elif self.layer == 1:
            layers = "encoder layer 1"
        else:
            layers = f"encoder layers 1 to {self.layer}"
        return f"In {layers} attention reaches {self.reach / FRAMES_PER_S:g} s to either side."

    def _early(self) -> str:
        share = _percent(self.sparsity)
        where = f"after encoder layer {self.layer}" if self.layer else "before the encoder's layers"
        if self.pool == "mean":
            return f"Averages neighbouring frames {where}, which leaves {share} fewer."
        if self.pool == "alike":
            return f"Averages the neighbours most alike {where}, which leaves {share} fewer."
        kept = {
            "attention": f"those that it attends to most ({self.aggregation} of its heads)",
            "stride": "every n-th",
            "energy": "the loudest",
            "random": "some at random",
        }[self.selection]
        of = f", of every {self.within} neighbours," if self.within else ""
        return f"Drops {share} of the frames {where}, and keeps{of} {kept}."

    def _late(self, whom: str) -> str:
        share, where = _percent(self.late), "after the last encoder layer"
        if self.pool == "mean":
            again = " again" if self.sparsity else " neighbouring frames"
            return f"Averages{again} {where}, which leaves {share} fewer for the decoder."
        return f"Drops {share} of {whom} {where}, and keeps every n-th for the decoder."


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


BUILT_IN: Mapping[str, Profile] = MappingProxyType(
    {
        p.name: p
        for p in (
            Profile("dense"),
            Profile("balanced", layer=3, sparsity=0.5, pool="mean"),
            Profile("fast", layer=2, sparsity=0.5, pool="mean"),
            Profile("turbo", layer=1, sparsity=0.5, pool="mean"),
            # For recordings of a few seconds: what is full of speech is dense.
            Profile("clips", padding=8),
            # Early Attentive Sparsification with the paper's choices: to compare with.
            Profile("eas-published", layer=2, sparsity=0.5),
        )
    }
)


Tables = Mapping[str, Mapping[str, Any]]


def load_profiles(path: Path | None, model: str = "") -> Mapping[str, Profile]:
    """The built-in profiles, as they are on `model`, and those of a TOML file.

    Raises what `own_tables` and `all_profiles` raise.
    """
    return all_profiles(own_tables(path), model)


def all_profiles(own: Tables, model: str = "") -> Mapping[str, Profile]:
    """The same of a file's tables. One of the file goes before a built-in of its name.

    Raises ConfigError for an unknown key or a value out of range.
    """
    tables = (shipped_tables(model), own)
    named = ((name, table) for some in tables for name, table in some.items())
    return MappingProxyType({**BUILT_IN, **{name: to_profile(name, t) for name, t in named}})


def own_tables(path: Path | None) -> Tables:
    """The tables of a profiles file, none without one.

    A table `[name]` is a whole profile, and may have `evidence`, of the model that it names.
    Raises ConfigError for a file that cannot be read.
    """
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"profiles file {path}: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"profiles file: {name!r} must be a table like [{name}]")
    return tables


def shipped_tables(model: str) -> Tables:
    """What `assets/profiles` says of the built-in profiles on a model; {} where it is unknown.

    Each table has a profile's fields, and may have `evidence`: what was measured of it.
    """
    name = f"{canonical_name(model)}.toml"
    known = {file.name: file for file in SHIPPED.iterdir()}
    return _read_shipped(known[name]) if name in known else {}


@cache
def _read_shipped(path: Path) -> Tables:
    """Once: every answer of `GET /profiles` asks for each profile."""
    return MappingProxyType(tomllib.loads(path.read_text()))


def canonical_name(model: str) -> str:
    """`whisper-base` of `base`, `openai/whisper-base`, `Systran/faster-whisper-base`, `base.pt`."""
    last = model.rstrip("/").rpartition("/")[2].lower()
    return "whisper-" + last.removeprefix("faster-").removeprefix("whisper-").removesuffix(".pt")


def to_profile(name: str, table: Mapping[str, Any]) -> Profile:
    """A table of a TOML file as the profile it defines, its evidence left out.

    Raises ConfigError for an unknown key or a value out of range.
    """
    choices = {key: value for key, value in table.items() if key != "evidence"}
    valid = [f.name for f in fields(Profile) if f.name != "name"]
    if unknown := sorted(set(choices) - set(valid)):
        raise ConfigError(
            f"profile {name}: unknown key {', '.join(unknown)}; valid keys: {', '.join(valid)}"
        )
    profile = Profile(name, **choices)
    if name == "dense" and not profile.is_dense:
        raise ConfigError(
            "profile dense: by definition it drops nothing and has the model's own weights; choose "
            "another name"
        )
    return profile


def check_plain(profiles: Iterable[Profile], why: str) -> None:
    """For a model that has no weights but its own. Raises ConfigError, with the reason, if a
    profile needs others."""
    for profile in profiles:
        if profile.is_adapted:
            raise ConfigError(f"profile {profile.name}: no low_rank, bits or gates here: {why}")


def check_depth(profiles: Mapping[str, Profile], num_layers: int) -> None:
    """Raises ConfigError if a profile prunes after a layer that the encoder does not have."""
    for profile in profiles.values():
        if profile.sparsity and profile.layer > num_layers:
            raise ConfigError(
                f"profile {profile.name}: layer {profile.layer}, but the model has {num_layers} "
                f"encoder layers; use 1 to {num_layers}"
            )
