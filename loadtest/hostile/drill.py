"""The run: trials side by side, an ordinary client meanwhile, an eye on the process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from tqdm import tqdm

from loadtest.hostile.answers import REFUSED, Outcome
from loadtest.hostile.connections import connection_trial
from loadtest.hostile.files import file_trial
from loadtest.hostile.forms import form_trial
from loadtest.hostile.frames import frame_trial
from loadtest.hostile.ordinary import Asked, Ordinary
from loadtest.hostile.process import Footprint, footprint, listener, settled_footprint
from loadtest.hostile.recordings import recordings
from loadtest.hostile.send import carry_out
from loadtest.hostile.sockets import close, handshake
from loadtest.hostile.trials import REALTIME, Due, Maker, Send, Target, Trial, make
from loadtest.hostile.verdict import Limits, Run
from loadtest.machine import is_here
from loadtest.own_service import ServiceFailed

KINDS: Mapping[str, tuple[int, Maker]] = {
    "file": (50, file_trial),
    "form": (20, form_trial),
    "frame": (18, frame_trial),
    "connection": (12, connection_trial),
}
NUM_REFUSED = 20  # connections in a row, and the run ends
WATCH_S = 0.25


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked of a run.

    `every_s`, `num_quiet`: between ordinary requests, and how many of them before all; `settle_s`:
    how long the service may take at the end to let go what it kept of clients that are gone.
    `kinds`: of `KINDS`, whose trials keep their numbers; `pid` None: the
    process that listens on the port, if it is on this machine.
    """

    url: str
    seed: int
    numbers: Sequence[int]
    kinds: tuple[str, ...]
    concurrency: int
    every_s: float
    num_quiet: int
    limits: Limits
    settle_s: float
    pid: int | None
    save: Path | None


def drill(asking: Asking) -> Run:
    """Everything. Raises ServiceFailed where there is no service to begin with."""
    parts = urlsplit(asking.url)
    if parts.scheme != "http" or not parts.hostname:
        raise ServiceFailed(f"{asking.url}: use http://HOST:PORT")
    host, port = parts.hostname, parts.port or 80
    target = Target(parts.netloc, parts.path.rstrip("/"))
    pid = asking.pid or (listener(port) if is_here(asking.url) else None)
    client = Ordinary(host, port, target, asking.every_s, asking.limits.hang_s)
    asyncio.run(_warmed_up(host, port, target, asking))
    quiet = _quiet(client, asking.num_quiet)
    before = footprint(pid) if pid else None
    watch = _Watch(pid)
    watch.start()
    client.start()
    try:
        outcomes, skipped = asyncio.run(_all(host, port, target, asking))
    finally:
        meanwhile = client.stop()
        watch.stop()
    after = _after(pid, before, asking)
    return Run(
        seed=asking.seed,
        outcomes=outcomes,
        skipped=skipped,
        quiet=quiet,
        meanwhile=meanwhile,
        before=before,
        after=after,
        peak_mb=watch.peak_mb,
        peak_at=watch.peak_at,
        gone=before is not None and after is None,
    )


def trial(seed: int, number: int, target: Target) -> Trial:
    """The trial of that number in the run of that seed."""
    return make(seed, number, target, KINDS)


def _quiet(client: Ordinary, number: int) -> list[Asked]:
    client.ask()  # the first pays for what is loaded late
    quiet = [client.ask() for _ in range(number)]
    if failed := [asked.problem for asked in quiet if asked.text is None]:
        raise ServiceFailed(f"an ordinary request fails before anything else: {failed[0]}")
    return quiet


def _after(pid: int | None, before: Footprint | None, asking: Asking) -> Footprint | None:
    if pid is None or before is None:
        return None
    limits = asking.limits

    def enough(now: Footprint) -> bool:
        return (
            now.descriptors <= before.descriptors + limits.descriptors
            and now.memory_mb <= before.memory_mb + limits.memory_mb
        )

    return settled_footprint(pid, enough, asking.settle_s)


async def _warmed_up(host: str, port: int, target: Target, asking: Asking) -> None:
    """Some trials of another run first: what the service loads once is none of the growth."""
    recordings()
    rng = Random(asking.seed)
    for _ in range(asking.concurrency):
        one = trial(-1, rng.randrange(2**32), target)
        if one.kind == "file":
            await carry_out(one, host, port, asking.limits.hang_s)


async def _all(host: str, port: int, target: Target, asking: Asking) -> tuple[list[Outcome], int]:
    """What became of the trials, and how many were skipped."""
    limit_s = asking.limits.hang_s
    has_realtime = await _answers(host, port, target, REALTIME)
    outcomes: list[Outcome] = []
    queue: Iterator[int] = iter(asking.numbers)
    with tqdm(total=len(asking.numbers), unit="trial", disable=None) as bar:

        async def worker() -> None:
            for number in queue:
                one = trial(asking.seed, number, target)
                if one.kind in asking.kinds and (one.path != REALTIME or has_realtime):
                    outcomes.append(outcome := await carry_out(one, host, port, limit_s))
                    if asking.save and (outcome.fault or len(asking.numbers) == 1):
                        _save(asking.save, one, outcome)
                bar.update()
                if len(outcomes) >= NUM_REFUSED and _is_over(outcomes[-NUM_REFUSED:]):
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(asking.concurrency):
                group.create_task(worker())
    if not has_realtime:
        tqdm.write(f"no WebSocket at {REALTIME}: its trials are skipped")
    return sorted(outcomes, key=lambda one: one.number), len(asking.numbers) - len(outcomes)


def _is_over(last: Sequence[Outcome]) -> bool:
    """Whether nobody is there any more."""
    return all(outcome.status == REFUSED for outcome in last)


async def _answers(host: str, port: int, target: Target, path: str) -> bool:
    sends = (Send(handshake(target, path, bytes(16)), answered=True), Send(close()))
    probe = Trial(-1, "frame", "a handshake", path, sends, Due.SOCKET)
    return (await carry_out(probe, host, port, 10.0)).status.startswith("101")


def _save(folder: Path, one: Trial, outcome: Outcome) -> None:
    """The bytes as they were sent, and how."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{one.number}.bin").write_bytes(one.content)
    how = {
        "kind": one.kind,
        "what": one.what,
        "path": one.path,
        "due": one.due.value,
        "sends": [{"bytes": len(send.data), "pause_s": send.pause_s} for send in one.sends],
        "status": outcome.status,
        "seconds": round(outcome.seconds, 3),
        "fault": outcome.fault,
    }
    (folder / f"{one.number}.json").write_text(json.dumps(how, indent=1) + "\n", encoding="utf-8")


class _Watch:
    """The most memory that was seen, on a thread."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak_mb = 0.0
        self.peak_at = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        if self._pid is None:
            return
        over = False
        while not over:
            began = time.monotonic()
            self._look(self._pid)
            # Who maps much takes long to be looked at, and is not to be held up by it.
            over = self._over.wait(WATCH_S + 4 * (time.monotonic() - began))
        self._look(self._pid)

    def _look(self, pid: int) -> None:
        began = time.monotonic()
        now = footprint(pid)
        if now is not None and now.memory_mb > self.peak_mb:
            self.peak_mb, self.peak_at = now.memory_mb, began
