"""Two evaluations side by side."""

from __future__ import annotations

from typing import Any

import pytest

from bench.pairs import rows
from service.errors import ConfigError


def evaluation(
    errors: dict[str, list[list[int]]], names: list[str] | None = None
) -> dict[str, Any]:
    """As `winnow evaluate --out` writes it: 10 words a recording, [substitutions, deletions,
    insertions] of each."""
    num = len(next(iter(errors.values())))
    names = names or [f"r{number}" for number in range(num)]
    return {
        "domains": [
            {
                "domain": "d",
                "items": [{"name": name, "words": 10} for name in names],
                "profiles": {
                    profile: {"items": [{"errors": each} for each in counts]}
                    for profile, counts in errors.items()
                },
            }
        ]
    }


def test_the_second_is_compared_with_the_first_on_the_same_recordings() -> None:
    first = evaluation({"dense": [[1, 0, 0], [0, 1, 0]], "fast": [[3, 0, 0], [0, 0, 0]]})
    second = evaluation({"dense": [[1, 1, 0], [0, 1, 1]]})
    (line,) = rows(first, second)
    assert line == "| d | 2 | dense | 10.00% | 20.00% | +10.00 (+10.00 to +10.00) |"


def test_other_recordings_are_refused() -> None:
    first = evaluation({"dense": [[1, 0, 0]]})
    second = evaluation({"dense": [[1, 0, 0]]}, ["other"])
    with pytest.raises(ConfigError, match="not the same"):
        list(rows(first, second))
