"""What profiles need beside a model's own weights: others of its encoder, and gates.

Adapters are folders that `winnow compress` and `winnow train` write. Each says of which model it
is, so that a service with several models takes the ones of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from service.errors import CheckpointError, ConfigError
from service.model.checkpoint import Checkpoint, read_state
from service.model.formats.find import path_of, read_folder
from service.model.formats.names import LOW_RANK
from service.model.gates import MANIFEST, Gates, read_gates
from service.model.operators.choose import cpu_operators, has_bfloat16
from service.model.operators.four_bits import four_bits
from service.model.operators.products import Pack
from service.model.tokens import read_json
from service.model.weights import EncoderWeights, State, alike, encoder_like
from service.profiles import Profile, canonical_name

_LAYERS = "model.encoder.layers."


@dataclass(frozen=True, slots=True)
class Adapters:
    """The folders that are of one model: of factors, by theta, and of gates, by target."""

    low_rank: Mapping[str, Path]
    gates: Mapping[float, Path]


def adapters_of(model: str, folders: Iterable[str]) -> Adapters:
    """Raises ConfigError for a folder that is no adapter, or is what another is."""
    low_rank: dict[str, Path] = {}
    gates: dict[float, Path] = {}
    for folder in map(path_of, folders):
        if not folder.is_dir():
            raise ConfigError(f"adapters: there is no folder {folder}")
        if (folder / LOW_RANK).is_file():
            of, theta = _said(folder / LOW_RANK, ("of", str), ("theta", str))
            if canonical_name(of) == canonical_name(model):
                _put(low_rank, theta, folder, f"low_rank {theta!r} of {model}")
        elif (folder / MANIFEST).is_file():
            of, target = _said(folder / MANIFEST, ("model", str), ("target", float))
            if canonical_name(of) == canonical_name(model):
                _put(gates, target, folder, f"gates {target} of {model}")
        else:
            raise ConfigError(f"adapters: in {folder} is neither {LOW_RANK} nor {MANIFEST}")
    return Adapters(low_rank, gates)


def _said(path: Path, *wanted: tuple[str, type]) -> list[Any]:
    """What a folder says of itself, in this order. It is looked at whole when it is used."""
    try:
        told = read_json(path)
    except CheckpointError as error:
        raise ConfigError(f"adapters: {error}") from error
    for name, kind in wanted:
        if not isinstance(told.get(name), kind):
            raise ConfigError(f"adapters: {path} does not say its {name}")
    return [told[name] for name, _ in wanted]


def _put(known: dict[Any, Path], key: str | float, folder: Path, what: str) -> None:
    if key in known:
        raise ConfigError(f"adapters: {known[key]} and {folder} are both {what}")
    known[key] = folder


def find_gates(model: str, profile: Profile, adapters: Adapters) -> Gates:
    """The gates that a profile names. Raises ConfigError where they are not there, and
    CheckpointError where they are damaged."""
    if profile.gates not in adapters.gates:
        there = ", ".join(map(str, adapters.gates)) or "none"
        raise ConfigError(
            f"profile {profile.name}: gates {profile.gates} of {model} are in none of the folders "
            f"of WINNOW_ADAPTERS (there: {there}); train some with: winnow train gates --model "
            f"{model} --target {profile.gates} --out FOLDER"
        )
    return read_gates(adapters.gates[profile.gates])


def key_of(profile: Profile, weight_dtype: str) -> tuple[str, int]:
    """Profiles of one key have the same encoder, of a model that is served in that type."""
    bits = 0 if profile.bits == 8 and weight_dtype == "int8" else profile.bits
    return profile.low_rank, bits


def make_encoder(checkpoint: Checkpoint, profile: Profile, adapters: Adapters) -> EncoderWeights:
    """The model's encoder by the profile's weights; what these leave as it is is held once.

    Raises ConfigError for what there is not, or cannot go together, and CheckpointError for
    factors that do not fit.
    """
    source = checkpoint.source
    if profile.low_rank:
        source = read_folder(_factors(checkpoint, profile, adapters))
        if source.dims != checkpoint.weights.dims:
            raise CheckpointError(f"{source.place}: its dimensions are not {checkpoint.name}'s")
    _, bits = key_of(profile, checkpoint.weight_dtype)
    pack = _few_bits(checkpoint, profile) if bits else None
    dtype = checkpoint.operators.dtype
    state = read_state(source, checkpoint.device, dtype, _LAYERS)
    try:
        _check_same(checkpoint, state, source.place)
        return encoder_like(
            checkpoint.weights.encoder,
            state,
            dtype,
            pack or checkpoint.operators.many,
            shares=pack is None,
        )
    except KeyError as error:
        raise CheckpointError(f"{source.place}: the parameter {error} is missing") from error


def _check_same(checkpoint: Checkpoint, state: State, place: str) -> None:
    """By the norms, which nothing packs. Raises CheckpointError for another model's, and KeyError
    for one that is missing."""
    for number, layer in enumerate(checkpoint.weights.encoder.layers):
        found = state[f"{_LAYERS}{number}.final_layer_norm.weight"]
        if not alike(found, layer.mlp.norm.weight):
            raise CheckpointError(f"{place}: made from other weights than {checkpoint.name} has")


def _factors(checkpoint: Checkpoint, profile: Profile, adapters: Adapters) -> Path:
    name, theta = checkpoint.name, profile.low_rank
    if checkpoint.source.settings.get("low_rank_config"):
        raise ConfigError(
            f"profile {profile.name}: low_rank does not go with {name}, whose products are factors "
            "already; leave it out"
        )
    if theta not in adapters.low_rank:
        there = ", ".join(map(repr, adapters.low_rank)) or "none"
        raise ConfigError(
            f"profile {profile.name}: low_rank {theta!r} of {name} is in none of the folders of "
            f"WINNOW_ADAPTERS (there: {there}); make one with: winnow compress low-rank --model "
            f"{name} --theta {theta} --out FOLDER"
        )
    return adapters.low_rank[theta]


def _few_bits(checkpoint: Checkpoint, profile: Profile) -> Pack:
    if checkpoint.device.type != "cpu":
        raise ConfigError(
            f"profile {profile.name}: bits is for a CPU; on {checkpoint.device} leave it out"
        )
    if profile.bits == 4:
        narrow = has_bfloat16() and checkpoint.weight_dtype != "float32"
        return four_bits(torch.bfloat16 if narrow else torch.float32)
    found = cpu_operators("int8")
    if found is None:
        raise ConfigError(
            f"profile {profile.name}: nothing multiplies 8 bits rightly on this processor; leave "
            "bits out"
        )
    return found.many
