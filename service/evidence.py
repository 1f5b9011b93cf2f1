"""What was measured of the built-in profiles, by model: shown where people choose."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from service.errors import ConfigError
from service.profiles import Profile, shipped_tables, to_profile

UNMEASURED = "Not measured on this model."
REFERENCE = "The other profiles are measured against it."


@dataclass(frozen=True, slots=True)
class Evidence:
    """A profile against `dense`, on one set of recordings, in one run.

    Word error rates are per cent, after Whisper's normaliser; `low_points` and `high_points` the
    95% interval of their difference in percentage points, paired; `speed` how many times as
    fast as dense the profile was, None where that was not measured.
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
        )


def evidence_of(profile: Profile, model: str) -> tuple[Evidence, ...]:
    """What was measured of exactly this profile on the model that is served as `model`.

    A profile that somebody changed has none, whatever its name. Raises ConfigError for evidence
    that cannot be read.
    """
    table = shipped_tables(model).get(profile.name)
    if table is None or to_profile(profile.name, table) != profile:
        return ()
    return tuple(_read(profile.name, measured) for measured in table.get("evidence", ()))


def measured(profile: Profile, evidence: tuple[Evidence, ...]) -> str:
    """The evidence in sentences for people, or that there is none."""
    if profile.is_dense:
        return REFERENCE
    return " ".join(one.sentence for one in evidence) or UNMEASURED


def _read(name: str, table: dict[str, Any]) -> Evidence:
    try:
        return Evidence(**table)
    except TypeError as error:
        raise ConfigError(f"evidence of profile {name}: {error}") from error
