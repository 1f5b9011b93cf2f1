"""A contestant's process, from outside: started, asked, closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from bench.contest.weights import Weights
from service.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SIDE = Path(__file__).with_name("side.py")
# Threads of whoever had the turn before spin for up to 0.2 s after their last product.
SETTLE_S = 0.3


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
        self,
        entry: Entry,
        weights: Weights,
        threads: int,
        peers_python: Path,
        tokens: int | None = None,
    ) -> None:
        """`tokens`: of every window, where the weights are random.

        Raises ChildProcessError where it cannot be started, with the last line it wrote.
        """
        self.entry = entry
        options = ["--threads", str(threads), *(["--tokens", str(tokens)] if tokens else [])]
        if entry.side == "winnow":
            command = [sys.executable, "-m", "bench.contest.ours", weights.model]
            options += ["--dtype", entry.compute]
        else:
            python = sys.executable if entry.side == "transformers" else str(peers_python)
            # -P: this folder's modules are none of a peer's.
            command = [python, "-P", str(SIDE), entry.side, str(weights.path(entry.form))]
            options += ["--compute", entry.compute]
        quiet = {"OMP_NUM_THREADS": str(threads), "TRANSFORMERS_VERBOSITY": "error"}
        # A pipe that nobody reads would fill up, and stop whoever writes much.
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - till close
        self._process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT if entry.side == "winnow" else None,
            env=os.environ | quiet | {"HF_HUB_OFFLINE": "1"},
            start_new_session=True,  # Ctrl-C is for us: what was measured is still written
            preexec_fn=partial(_hold, threads),
        )
        try:
            said = self._read()
        except BaseException:
            self.close()
            raise
        self.version: str = said["version"]
        self.compute: str = said.get("compute", entry.compute)

    def turn(self, clips: Path, batch: int, language: str) -> Turn:
        """All the clips of an `.npz`, timed on the other side. Raises ChildProcessError."""
        assert self._process.stdin is not None
        time.sleep(SETTLE_S)
        asked = {"clips": str(clips), "batch": batch, "language": language}
        asked["profile"] = self.entry.profile
        with suppress(BrokenPipeError):  # it ended between two turns: what it wrote last is read
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        said = self._read()
        return Turn(tuple(said["texts"]), said["seconds"], said["rss_mb"])

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["it said nothing"])[-1]
            raise ChildProcessError(f"{self.entry.name}: {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _hold(threads: int) -> None:
    """To as many cores as there are threads: a side that has more of them would use the rest."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def entries(names: Sequence[str]) -> list[Entry]:
    """Entries by name: `winnow:PROFILE[:DTYPE]`, or one of `PEERS`. Raises ConfigError."""
    found = []
    for name in names:
        if name.startswith("winnow:"):
            _, profile, *dtype = name.split(":")
            found.append(Entry(name, "winnow", dtype[0] if dtype else "auto", "hub", profile))
        elif name in PEERS:
            found.append(PEERS[name])
        else:
            raise ConfigError(f"side {name!r}: use winnow:PROFILE[:DTYPE] or {', '.join(PEERS)}")
    return found


PEERS = {
    one.name: one
    for one in (
        Entry("faster-whisper-int8", "faster-whisper", "int8", "ct2"),
        Entry("faster-whisper-float32", "faster-whisper", "float32", "ct2"),
        Entry("whisper.cpp", "whisper.cpp", "float16", "ggml", batches=False),
        Entry("openvino-int8", "openvino", "int8", "openvino", batches=False),
        Entry("transformers", "transformers", "float32", "hub"),
        Entry("openai-whisper", "openai-whisper", "float32", "pt", batches=False),
    )
}
