"""Parameters of a request: names checked, values parsed; each refusal lists what would be right."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from service.errors import InvalidRequest

# With OpenAI's brackets, as its clients send a list, and without.
GRANULARITIES = ("timestamp_granularities[]", "timestamp_granularities")
TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")


def collect(
    pairs: Iterable[tuple[str, str]], valid: Sequence[str], lists: Sequence[str] = ()
) -> Mapping[str, tuple[str, ...]]:
    """Groups (name, value) pairs. An empty value, which a blank form field sends, is not given.

    Raises InvalidRequest for a name that is not `valid`, or one not in `lists` given twice.
    """
    given: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        if name not in valid:
            raise InvalidRequest(
                f"Unknown parameter '{name}'. Valid parameters: {', '.join(valid)}.", name
            )
        if not value.strip():
            continue
        if name in given and name not in lists:
            raise InvalidRequest(f"{name} is given more than once.", name)
        given[name] = (*given.get(name, ()), value.strip())
    return given


def one(given: Mapping[str, tuple[str, ...]], name: str) -> str | None:
    """The value of a parameter that is given at most once."""
    values = given.get(name)
    return values[0] if values else None


def choice(name: str, value: str | None, valid: Sequence[str]) -> str:
    """`value` if it is one of `valid`; the first of them if it is not given."""
    if value is None:
        return valid[0]
    if value not in valid:
        raise InvalidRequest(f"{name} '{value}' is not one of: {', '.join(valid)}.", name)
    return value


def number(
    name: str, value: str | None, default: float, most: float, *, positive: bool = False
) -> float:
    """A finite number from 0 to `most`; 0 itself is refused where it must be `positive`."""
    if value is None:
        return default
    try:
        parsed = float(value)
    except ValueError:
        parsed = math.nan
    if not 0 <= parsed <= most or (positive and parsed == 0):
        least = "more than 0" if positive else "from 0"
        raise InvalidRequest(f"{name} '{value}' is not a number {least} to {most:g}.", name)
    return parsed


def whole(name: str, value: str | None, least: int, most: int) -> int | None:
    """A whole number from `least` to `most`; None where it is not given."""
    if value is None:
        return None
    # Its length first: Python refuses to parse numbers of thousands of digits.
    digits = value.isascii() and value.isdigit() and len(value) <= len(str(most))
    if not (digits and least <= int(value) <= most):
        raise InvalidRequest(f"{name} '{value}' is not a whole number {least} to {most}.", name)
    return int(value)


def flag(name: str, value: str | None, default: bool) -> bool:
    """True or false, in the spellings that forms and query strings use."""
    if value is None:
        return default
    if value.lower() not in TRUE + FALSE:
        raise InvalidRequest(f"{name} '{value}' is not one of: {', '.join(TRUE + FALSE)}.", name)
    return value.lower() in TRUE


def granularities(given: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What times are asked for: `segment`, `word`, both, or nothing said."""
    values = [value for name in GRANULARITIES for value in given.get(name, ())]
    return tuple(choice(GRANULARITIES[1], value, ("segment", "word")) for value in values)
