"""Memory and descriptors of the service's processes, as /proc has them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"  # a state in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of a process and all that it started: its own memory, files that are mapped left out, so that
    other processes that map them change nothing; open descriptors; processes."""

    memory_mb: float
    descriptors: int
    processes: int


def listener(port: int) -> int | None:
    """The process that listens on a port of this machine; None where nobody is seen."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    # A child may hold its parent's socket: the eldest is the service.
    return min((pid for pid in _pids() if sockets & _open(pid)), default=None)


def footprint(pid: int) -> Footprint | None:
    """None where the process is gone."""
    tree = _tree(pid)
    if not tree:
        return None
    memory_mb = sum(_memory_kb(each) for each in tree) / 1024
    return Footprint(memory_mb, sum(_num_open(each) for each in tree), len(tree))


def settled_footprint(
    pid: int, enough: Callable[[Footprint], bool], limit_s: float, every_s: float = 0.5
) -> Footprint | None:
    """The footprint once it is `enough`, or what it is after `limit_s` seconds."""
    until = time.monotonic() + limit_s
    while True:
        now = footprint(pid)
        if now is None or enough(now) or time.monotonic() > until:
            return now
        time.sleep(every_s)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]


def _tree(pid: int) -> list[int]:
    parents = {each: _parent(each) for each in _pids()}
    if parents.get(pid) is None:
        return []
    tree = [pid]
    for one in tree:
        tree += [each for each, parent in parents.items() if parent == one]
    return tree


def _parent(pid: int) -> int | None:
    try:
        # The name before it may hold spaces and brackets.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[1])


def _open(pid: int) -> set[str]:
    folder = PROC / str(pid) / "fd"
    targets = set()
    try:
        for name in os.listdir(folder):
            try:
                targets.add(os.readlink(folder / name))
            except OSError:
                continue  # closed meanwhile
    except OSError:
        return targets  # gone, or another user's
    return targets


def _num_open(pid: int) -> int:
    try:
        return len(os.listdir(PROC / str(pid) / "fd"))
    except OSError:
        return 0


def _memory_kb(pid: int) -> float:
    """What is its own, shared pages by their share; all that is resident where no more is told."""
    for name, fields in (
        ("smaps_rollup", ("Pss_Anon", "Pss_Shmem", "SwapPss")),
        ("status", ("RssAnon", "RssShmem", "VmSwap")),
        ("status", ("VmRSS",)),
    ):
        try:
            text = (PROC / str(pid) / name).read_text()
        except OSError:
            continue
        if found := re.findall(rf"^(?:{'|'.join(fields)}):\s+(\d+)", text, re.MULTILINE):
            return float(sum(map(int, found)))
    return 0.0
