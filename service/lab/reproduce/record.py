"""Finished parts of a run in a folder, so that it goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from service.lab.outcomes import ItemOutcome
from service.lab.packing import Item
from service.text.wer import Errors


class Record:
    """JSON files, each of them one part, named after all that it depends on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: Mapping[str, Any]) -> Any | None:
        """What was found for this key, or None. What cannot be read is as good as not there."""
        try:
            part = json.loads(self._path(key).read_text())
            return part["found"] if part["key"] == _plain(key) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, key: Mapping[str, Any], found: Any) -> None:
        """Whole or not at all: a run that is killed meanwhile leaves no half of it."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_text(json.dumps({"key": _plain(key), "found": found}, ensure_ascii=False))
        beside.replace(path)

    def _path(self, key: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(_plain(key), sort_keys=True).encode()).hexdigest()
        return self._folder / f"{digest[:20]}.json"


def _plain(key: Mapping[str, Any]) -> Any:
    """As it comes back from JSON: a tuple is a list."""
    return json.loads(json.dumps(key))


def digest(items: Sequence[Item]) -> str:
    """Of all that a result depends on: what is heard, what is said in it, and in which language."""
    found = hashlib.sha256()
    for item in items:
        found.update(json.dumps([item.name, item.text, item.language, len(item.pcm)]).encode())
        found.update(item.pcm.tobytes())
    return found.hexdigest()[:20]


def outcomes_to_json(outcomes: Sequence[ItemOutcome]) -> list[dict[str, Any]]:
    """Without what was said: that is nobody's but the recording's owner's."""
    written = []
    for one in outcomes:
        part = {field.name: getattr(one, field.name) for field in fields(one)}
        del part["text"]
        # Not asdict of the whole: it makes counts of a Counter's pairs.
        written.append({**part, "errors": asdict(one.errors), "again": dict(one.again)})
    return written


def outcomes_from_json(found: Sequence[Mapping[str, Any]]) -> tuple[ItemOutcome, ...]:
    return tuple(
        ItemOutcome(**{**one, "errors": Errors(**one["errors"]), "text": ""}) for one in found
    )
