"""The fields of a JSON object, read by name, unknown ones refused, as OpenAI's Realtime does."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from service.errors import InvalidRequest

MAX_TEXT = 10_000  # characters of one text
MAX_LIST = 1_000


class BadEvent(InvalidRequest):
    """An event that cannot be taken. `code` is OpenAI's word for why."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message, param)
        self.code = code


class Fields:
    """An object at `path` of an event, none of whose fields is other than the `valid` ones.

    Each reading raises BadEvent that names the field and what would be right.
    """

    def __init__(self, given: Any, path: str, valid: Sequence[str]) -> None:
        self._path = path
        if not isinstance(given, dict):
            raise BadEvent(f"{path or 'An event'} must be a JSON object.", path or None)
        self._given: Mapping[str, Any] = given
        for name in given:
            if name not in valid:
                raise BadEvent(
                    f"Unknown parameter: '{self.path(name)[:100]}'. Valid: {', '.join(valid)}.",
                    self.path(name)[:100],
                    "unknown_parameter",
                )

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def path(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def is_null(self, name: str) -> bool:
        """Whether it is given as null."""
        return name in self._given and self._given[name] is None

    def inner(self, name: str, valid: Sequence[str]) -> Fields:
        """The object of this name; one without fields where it is not given."""
        return Fields(self._given.get(name, {}), self.path(name), valid)

    def text(self, name: str, default: str | None = None) -> str | None:
        """A text; null is none."""
        value = self._given.get(name, default)
        if value is not None and not isinstance(value, str):
            raise self._bad(name, "must be a string")
        if value is not None and len(value) > MAX_TEXT:
            raise self._bad(name, f"must have at most {MAX_TEXT:,} characters")
        return value

    def texts(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A list of texts; null is an empty one."""
        values = self._given.get(name, default)
        values = () if values is None else values
        if not isinstance(values, list | tuple) or not all(isinstance(one, str) for one in values):
            raise self._bad(name, "must be a list of strings")
        if len(values) > MAX_LIST or sum(map(len, values)) > MAX_TEXT:
            raise self._bad(name, f"must have at most {MAX_TEXT:,} characters in {MAX_LIST:,}")
        return tuple(values)

    def choice(self, name: str, valid: Sequence[str], default: str | None = None) -> str:
        """One of the valid texts; it has to be given where there is no default."""
        value = self._given.get(name, default)
        if value is None and name not in self._given:
            raise BadEvent(
                f"Missing required parameter: '{self.path(name)}'.",
                self.path(name),
                "missing_required_parameter",
            )
        if not isinstance(value, str) or value not in valid:
            shown = json.dumps(value)[:100]
            raise self._bad(name, f"{shown} is not supported; use {', '.join(valid)}")
        return value

    def whole(self, name: str, least: int, most: int, default: int) -> int:
        value = self._given.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._bad(name, f"must be a whole number, {least:,} to {most:,}")
        return value

    def only(self, name: str, valid: int) -> None:
        """Nothing but this number, or nothing at all."""
        value = self._given.get(name, valid)
        if isinstance(value, bool) or value != valid:
            raise self._bad(name, f"must be {valid}")

    def number(self, name: str, least: float, most: float, default: float) -> float:
        value = self._given.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            value = math.nan
        if not least <= value <= most:
            raise self._bad(name, f"must be a number, {least:g} to {most:g}")
        return float(value)

    def _bad(self, name: str, what: str) -> BadEvent:
        return BadEvent(f"Invalid '{self.path(name)}': {what}.", self.path(name))
