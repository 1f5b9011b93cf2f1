"""Results to files: all figures as JSON with where they are from, the table, and a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.lab.machine import machine, origin


class Record:
    """STEM.json, STEM.md and STEM.png. Written as often as there is more: what was measured
    survives an interruption."""

    def __init__(self, stem: Path, arguments: Sequence[str], threads: int) -> None:
        stem.parent.mkdir(parents=True, exist_ok=True)
        self._stem = stem
        self._from: Mapping[str, Any] = {
            **origin(["bench", *arguments]),
            "machine": machine("cpu", threads),
        }

    def write(self, figures: Mapping[str, Any]) -> None:
        """The JSON, in the place of an earlier one."""
        part = self._path(".json.part")
        part.write_text(json.dumps({**self._from, **figures}, indent=1) + "\n")
        part.rename(self._path(".json"))

    def finish(self, table: str, plot: Callable[[Path], None]) -> None:
        """The table, which is also printed, and the picture."""
        text = f"{self.where()}\n\n{table}\n"
        self._path(".md").write_text(text)
        plot(self._path(".png"))
        print(text)

    def where(self) -> str:
        """In a line: processor and what it has for products, versions, commit and command."""
        found = self._from["machine"]
        return (
            f"{found['cpu']} ({', '.join(found['flags']) or 'flags unknown'}), {found['cores']} "
            f"cores, {found['threads']} threads a side; torch {found['torch']}, Winnow "
            f"{self._from['winnow']} at {self._from['commit']}, {self._from['date']}: "
            f"`{self._from['command']}`"
        )

    def _path(self, ending: str) -> Path:
        return self._stem.with_name(self._stem.name + ending)
