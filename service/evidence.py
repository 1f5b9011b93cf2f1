"""What was measured of profiles, by model: shown where people choose."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from service.errors import ConfigError
from service.profiles import Profile, Tables, canonical_name, shipped_tables, to_profile

UNMEASURED = "Not measured on this model."
REFERENCE = "The other profiles are measured against it."

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float, type(None)), "a number"),
    "datetime.date": ((datetime.date,), "a date, as 2026-11-26"),
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """A profile against `dense`, on one set of recordings, in one run.

    Word error rates are per cent, after Whisper's normaliser; `low_points` and `high_points` the
    95% interval of their difference in percentage points, paired; `speed` how many times as
    fast as dense the profile was, None where that was not measured. `meant_points` is the most
    that the profile is meant to cost, `meant_speed` the least that it is meant to be worth.
    """

    data: str
    windows: int
    wer_percent: float
    dense_wer_percent: float
    low_points: float
    high_points: float
    machine: str
    command: str
    date: datetime.date
    speed: float | None = None
    meant_points: float | None = None
    meant_speed: float | None = None

    @property
    def difference_points(self) -> float:
        return round(self.wer_percent - self.dense_wer_percent, 2)

    @property
    def sentence(self) -> str:
        difference, low, high = (
            f"{points:+.1f}".replace("-", "\N{MINUS SIGN}")
            for points in (self.difference_points, self.low_points, self.high_points)
        )
        speed = "" if self.speed is None else f"; {self.speed:.1f} times dense's speed"
        return (
            f"WER {self.wer_percent:.1f}% against {self.dense_wer_percent:.1f}% dense (difference "
            f"{difference}, 95% {low} to {high}) on {self.windows} windows of {self.data}{speed}."
            f"{self._missed}"
        )

    @property
    def _missed(self) -> str:
        """What of the profile's aims does not hold here, in figures as they are shown, as one more
        sentence."""
        costs, slow = self.meant_points, self.meant_speed
        missed = []
        if costs is not None and round(self.difference_points, 1) > costs:
            missed.append(f"it is meant to cost at most {costs:.1f} points")
        if slow is not None and self.speed is not None and round(self.speed, 1) < slow:
            missed.append(f"it is meant to be {slow:.1f} times as fast")
        return f" That misses its aim: {' and '.join(missed)}." if missed else ""


def evidence_of(
    profile: Profile, model: str, own: Tables | None = None, shipped_as: str | None = None
) -> tuple[Evidence, ...]:
    """What was measured of exactly this profile on the model that is served as `model`.

    `own`: the tables of somebody's profiles file, whose evidence names its model. `shipped_as`: the
    model whose shipped evidence it has, if that is not the one of its name. A profile that
    somebody changed has none of what was shipped, whatever its name. Raises ConfigError for
    evidence that cannot be read.
    """
    table = (own or {}).get(profile.name, {})
    if "evidence" in table:
        found = [_read_own(profile.name, one) for one in _list(profile.name, table)]
        served = canonical_name(model)
        return tuple(one for name, one in found if canonical_name(name) == served)
    table = shipped_tables(model if shipped_as is None else shipped_as).get(profile.name, {})
    if "evidence" not in table or to_profile(profile.name, table) != profile:
        return ()
    return tuple(_read(profile.name, one) for one in table["evidence"])


def measured(profile: Profile, evidence: tuple[Evidence, ...]) -> str:
    """The evidence in sentences for people, or that there is none."""
    if profile.is_dense:
        return REFERENCE
    return " ".join(one.sentence for one in evidence) or UNMEASURED


def _list(name: str, table: Mapping[str, Any]) -> list[dict[str, Any]]:
    tables = table["evidence"]
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        raise ConfigError(f"evidence of profile {name}: use tables like [[{name}.evidence]]")
    return tables


def _read_own(name: str, table: dict[str, Any]) -> tuple[str, Evidence]:
    """The model that it is of, and the evidence."""
    model = table.get("model")
    if not isinstance(model, str) or not model:
        raise ConfigError(f"evidence of profile {name}: model must name what it was measured on")
    return model, _read(name, {key: value for key, value in table.items() if key != "model"})


def _read(name: str, table: dict[str, Any]) -> Evidence:
    try:
        evidence = Evidence(**table)
    except TypeError as error:
        raise ConfigError(f"evidence of profile {name}: {error}") from error
    for field in fields(Evidence):
        value = getattr(evidence, field.name)
        kind, said = _KINDS[str(field.type)]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"evidence of profile {name}: {field.name} must be {said}")
    return evidence
