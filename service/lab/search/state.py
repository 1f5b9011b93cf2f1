"""What a search has found out so far, on disk: a line for each answer, written before the next.

A search that was killed is started again with the same command: what is here is not done again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from service.errors import ConfigError
from service.lab.search.trials import Place, Trial, from_record, to_record

FILE = "state.jsonl"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """What results depend on, each in a few words or as a digest. `dtype`: as it is asked for."""

    model: str
    dtype: str
    data: str
    space: str
    how: str
    seed: int


# What is most telling first.
_CALLED = {
    "model": "another model, or the same on another device or processor",
    "dtype": "answers that were computed in another type",
    "seed": "another seed",
    "how": "answers that were made in another way",
    "data": "other recordings",
    "space": "another space",
}


def digest(*parts: bytes | str) -> str:
    """The same of the same parts, whatever they hold."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()[:16]


def recorded_dtype(folder: Path) -> str | None:
    """The type in which the search in a folder computes; None where there is none.

    What suits a processor is tried at every start, and a busy machine may choose otherwise: who
    goes on with a search goes on with this.
    """
    try:
        with (folder / FILE).open("rb") as file:
            return str(json.loads(file.readline())["dtype"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class State:
    """The state in a folder, of one search at a time. To be entered.

    Each line is a JSON object and ends in a line break: a last line without one was being written
    when the search was killed, and counts for nothing.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        self._path = folder / FILE
        self._identity = identity
        self._file: BinaryIO | None = None
        self._trials: dict[tuple[str, str], Trial] = {}
        self._rounds: list[dict[str, dict[str, float]]] = []
        self._pace_s: float | None = None

    def __enter__(self) -> Self:
        """Raises ConfigError for a folder that cannot be written, is another search's, or in
        which one is going on."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        except OSError as error:
            raise ConfigError(f"--state {self._path.parent}: {error.strerror}") from error
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file:
            self._file.close()

    @property
    def num_trials(self) -> int:
        return len(self._trials)

    @property
    def pace_s(self) -> float | None:
        """Seconds that a recording took dense, when that was seen first."""
        return self._pace_s

    def trial(self, candidate: str, place: Place) -> Trial | None:
        return self._trials.get((candidate, place.key))

    def rounds(self, names: Sequence[str]) -> list[dict[str, dict[str, float]]]:
        """Those that were timed of all these profiles: seconds by domain and name, a round each."""
        return [
            one
            for one in self._rounds
            if all(set(names) <= set(seconds) for seconds in one.values())
        ]

    def add_trial(self, candidate: str, stage: str, place: Place, trial: Trial) -> None:
        told = {"candidate": candidate, "stage": stage, "item": place.key}
        self._append({**told, **to_record(trial)})
        self._trials[candidate, place.key] = trial

    def add_round(self, seconds: Mapping[str, Mapping[str, float]]) -> None:
        told = {domain: dict(some) for domain, some in seconds.items()}
        self._append({"round": told})
        self._rounds.append(told)

    def add_pace(self, seconds: float) -> None:
        self._append({"pace_s": seconds})
        self._pace_s = seconds

    def _lock(self) -> None:
        assert self._file
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"--state {self._path.parent}: a search is going on there; wait for it, or use "
                "another folder"
            ) from None

    def _read(self) -> None:
        assert self._file
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            torn = lines.pop()
            self._file.truncate(self._file.tell() - len(torn))
        if not lines:
            self._append({"winnow_search": FORMAT, **_said(self._identity)})
            return
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                if number == 1:
                    self._check(record)
                else:
                    self._take(record)
            except (ValueError, KeyError, TypeError):
                raise ConfigError(
                    f"{self._path}, line {number}: not what a search writes; use another --state "
                    "folder, or delete this one to begin anew"
                ) from None

    def _check(self, record: Mapping[str, Any]) -> None:
        if record["winnow_search"] != FORMAT:
            raise ValueError
        for name, value in _said(self._identity).items():
            if record[name] != value:
                was = "" if name in ("data", "space") else f" ({record[name]}, not {value})"
                raise ConfigError(
                    f"--state {self._path.parent} is of {_CALLED[name]}{was}; use another folder, "
                    "or delete this one to begin anew"
                )

    def _take(self, record: Mapping[str, Any]) -> None:
        if "pace_s" in record:
            self._pace_s = float(record["pace_s"])
        elif "round" in record:
            self._rounds.append(dict(record["round"]))
        else:
            self._trials[record["candidate"], record["item"]] = from_record(record)

    def _append(self, record: Mapping[str, Any]) -> None:
        """On disk when this returns."""
        assert self._file
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _said(identity: Identity) -> dict[str, str | int]:
    return {name: getattr(identity, name) for name in _CALLED}
