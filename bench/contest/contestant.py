"""A contestant's process, from outside: started, asked, closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench.contest.weights import Weights

SIDE = Path(__file__).with_name("side.py")


@dataclass(frozen=True, slots=True)
class Entry:
    """Who takes part: `name` in the table, the side that runs it, what it computes in.

    `profile` is Winnow's. `form` is the format of the weights. `batches`: False where the side
    takes one clip at a time whatever is asked.
    """

    name: str
    side: str
    compute: str
    form: str = "hub"
    profile: str = ""
    batches: bool = True


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn gave: a text for each clip, the seconds of all, and resident memory after."""

    texts: tuple[str, ...]
    seconds: float
    rss_mb: float


class Contestant:
    """A running side. To be closed."""

    def __init__(
        self, entry: Entry, model: str, weights: Weights, threads: int, peers_python: Path
    ) -> None:
        """Raises ChildProcessError where it cannot be started, with the last line it wrote."""
        self.entry = entry
        if entry.side == "winnow":
            options = ["--dtype", entry.compute, "--threads", str(threads)]
            command = [sys.executable, "-m", "bench.contest.ours", model, *options]
        else:
            python = sys.executable if entry.side == "transformers" else str(peers_python)
            options = ["--compute", entry.compute, "--threads", str(threads)]
            place = str(weights.path(entry.form))
            command = [python, str(SIDE), entry.side, place, *options]
        # Threads that spin between two products would take the cores from who has the turn.
        quiet = {"OMP_NUM_THREADS": str(threads), "TRANSFORMERS_VERBOSITY": "error"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | quiet,
        )
        said = self._read()
        self.version: str = said["version"]
        self.compute: str = said.get("compute", entry.compute)

    def turn(self, clips: Path, batch: int, language: str) -> Turn:
        """All the clips of an `.npz`, timed on the other side."""
        assert self._process.stdin is not None
        asked = {
            **{"clips": str(clips), "batch": batch, "language": language},
            "profile": self.entry.profile,
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        said = self._read()
        return Turn(tuple(said["texts"]), said["seconds"], said["rss_mb"])

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            last = (errors.strip().splitlines() or ["it said nothing"])[-1]
            raise ChildProcessError(f"{self.entry.name}: {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def entries(names: Sequence[str]) -> list[Entry]:
    """Entries by name: `winnow:PROFILE[:DTYPE]`, or one of `PEERS`. Raises KeyError."""
    found = []
    for name in names:
        if name.startswith("winnow:"):
            _, profile, *dtype = name.split(":")
            found.append(Entry(name, "winnow", dtype[0] if dtype else "auto", "hub", profile))
        else:
            found.append(PEERS[name])
    return found


PEERS = {
    one.name: one
    for one in (
        Entry("faster-whisper-int8", "faster-whisper", "int8", "ct2"),
        Entry("faster-whisper-float32", "faster-whisper", "float32", "ct2"),
        Entry("whisper.cpp", "whisper.cpp", "float16", "ggml", batches=False),
        Entry("transformers", "transformers", "float32", "hub"),
        Entry("openai-whisper", "openai-whisper", "float32", "pt", batches=False),
    )
}
