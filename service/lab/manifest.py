"""Lists of recordings with what is said in them: TSV with a header, or JSONL.

The corpus' own `manifest.tsv` is one of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from service.errors import ConfigError

PATH_KEYS = ("path", "audio_filepath", "audio")
TEXT_KEYS = ("transcript", "text", "sentence")


@dataclass(frozen=True, slots=True)
class Row:
    """A recording: `text` is what is said in it, "" for nothing; `name` is its path as listed."""

    path: Path
    name: str
    text: str
    language: str
    speaker: str = ""
    split: str = ""


def read_manifest(path: Path, language: str = "en") -> list[Row]:
    """The rows of a manifest; `language` is that of rows that name none.

    Paths are taken from the manifest's folder. Raises ConfigError, with the number of the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"manifest {path}: {error}") from None
    records = _json_lines if path.suffix.lower() in (".jsonl", ".json") else _tab_separated
    refuse = partial(_refusal, path)
    rows = [
        _row(record, path.parent, language, partial(refuse, number))
        for number, record in records(lines, refuse)
    ]
    if not rows:
        raise ConfigError(f"manifest {path}: it lists no recordings")
    return rows


Refuse = Callable[[int, str], ConfigError]


def _refusal(path: Path, number: int, why: str) -> ConfigError:
    return ConfigError(f"manifest {path}, line {number}: {why}")


def _tab_separated(lines: list[str], refuse: Refuse) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Cells are taken as they stand: no quoting."""
    header = lines[0].split("\t") if lines else []
    for keys in (PATH_KEYS, TEXT_KEYS):
        if not set(keys) & set(header):
            raise refuse(1, f"the header needs a column {' or '.join(keys[:2])}, tab-separated")
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise refuse(number, f"{len(cells)} cells, but the header has {len(header)}")
        yield number, dict(zip(header, cells, strict=True))


def _json_lines(lines: list[str], refuse: Refuse) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise refuse(number, f"not JSON: {error}") from None
        if not isinstance(record, dict):
            raise refuse(number, "not a JSON object")
        if record.get("offset"):
            raise refuse(number, "a part of a file (offset); cut it out into a file of its own")
        yield number, record


def _row(
    record: Mapping[str, Any], folder: Path, language: str, refuse: Callable[[str], ConfigError]
) -> Row:
    def first(keys: tuple[str, ...]) -> str | None:
        value = next((record[key] for key in keys if record.get(key) is not None), None)
        if value is not None and not isinstance(value, str | int):
            raise refuse(f"{keys[0]} must be text")
        return None if value is None else str(value)

    name, text = first(PATH_KEYS), first(TEXT_KEYS)
    if not name:
        raise refuse(f"no {' or '.join(PATH_KEYS[:2])}")
    if text is None:
        raise refuse(f"no {' or '.join(TEXT_KEYS[:2])}")
    if not (folder / name).is_file():
        raise refuse(f"no such file: {folder / name}")
    return Row(
        path=folder / name,
        name=name,
        text=text,
        language=first(("language",)) or language,
        speaker=first(("speaker", "client_id")) or "",
        split=first(("split",)) or "",
    )
