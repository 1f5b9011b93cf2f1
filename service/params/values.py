"""Parameters of a request: names checked, values parsed; each refusal lists what would be right."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from service.errors import InvalidRequest

Given = Mapping[str, tuple[str, ...]]

TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")
GRANULARITIES = "timestamp_granularities"
# Lists, which clients send as name[], name, name[0], with commas, or as JSON.
LISTS = (GRANULARITIES, "languages", "keywords", "include")
_INDEX = re.compile(r"\[\d*\]$")
_KEY = re.compile(r"\.(\w+)$")


def collect(
    pairs: Iterable[tuple[str, str]], valid: Sequence[str], also: Sequence[str] = ()
) -> Given:
    """Groups (name, value) pairs. An empty value, which a blank form field sends, is not given.

    `also` are names that are taken and not advertised. Raises InvalidRequest for a name that is
    in neither, or one that is no list and given twice.
    """
    given: dict[str, tuple[str, ...]] = {}
    for sent, value in pairs:
        name = plain_name(sent)
        if name not in valid and name not in also:
            raise InvalidRequest(
                f"Unknown parameter '{sent}'. Valid parameters: {', '.join(valid)}.", sent
            )
        if not value.strip():
            continue
        if name in given and name not in LISTS and name not in also:
            raise InvalidRequest(f"{name} is given more than once.", name)
        given[name] = (*given.get(name, ()), value.strip())
    return given


def plain_name(sent: str) -> str:
    """`a` for `a[]` and `a[0]`; `a[b]` for `a.b`."""
    return _KEY.sub(r"[\1]", _INDEX.sub("", sent))


def one(given: Given, name: str) -> str | None:
    """The value of a parameter that is given at most once."""
    values = given.get(name)
    return values[0] if values else None


def several(given: Given, name: str) -> tuple[str, ...]:
    """The values of a list: each one that is given, a JSON list of them, or parted by commas.

    A list as other languages print it, `[word]` or `['word']`, is understood as well.
    """
    return tuple(part for value in given.get(name, ()) for part in _parts(value))


def _parts(value: str) -> list[str]:
    parts: list[object] = list(value.split(","))
    if value.startswith("["):
        try:
            parts = json.loads(value)
        except (ValueError, RecursionError):
            parts = [str(part).strip(" []'\"") for part in parts]
    return [part for one in parts if (part := str(one).strip())]


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


def granularities(given: Given) -> tuple[str, ...]:
    """What times are asked for: `segment`, `word`, both, or nothing said."""
    asked = [value.lower() for value in several(given, GRANULARITIES)]
    return tuple(choice(GRANULARITIES, value, ("segment", "word")) for value in asked)
