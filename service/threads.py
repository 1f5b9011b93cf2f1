"""How many threads this process may keep busy, and how long they wait for each other awake."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from service.cgroups import Read, folders, reader

_QUOTA, _PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"
# libgomp's turns of its waiting loop before a thread sleeps. By itself it goes round 300,000 times,
# while the thread that is waited for may have no processor: it does not know of other processes,
# nor of other pools in this one. 1,000 are so few that threads sleep between two products.
_WAIT_TURNS = "10000"


def usable_threads(root: Path = Path("/")) -> int:
    """As many as there are processors for, by this process's affinity and its cgroups' limits."""
    if hasattr(os, "sched_getaffinity"):
        num_cpus = len(os.sched_getaffinity(0))
    else:
        num_cpus = os.cpu_count() or 1

    return allowed(num_cpus, reader(root))


def allowed(num_cpus: int, read: Read) -> int:
    """`num_cpus`, or the processors that the tightest cgroup limit is worth, rounded down; 1 at
    least: a thread more than that is stopped by the kernel together with those who wait for it.

    Limits are `cpu.max` of version 2 and CFS quotas of version 1, of the process's cgroup and all
    above it (kernel documentation, admin-guide/cgroup-v2 and scheduler/sched-bwc).
    """
    return max(1, math.floor(min([num_cpus, *_limits(read)])))


def _limits(read: Read) -> Iterator[float]:
    """In processors."""
    for version, folder in folders("cpu", read):
        if version == 2:
            quota, _, period = read(f"{folder}/cpu.max").strip().partition(" ")
        else:
            quota = read(f"{folder}/{_QUOTA}").strip()
            period = read(f"{folder}/{_PERIOD}").strip()
        # Without a limit it is `max`, or -1.
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)


def wait_briefly(environ: MutableMapping[str, str]) -> None:
    """Has OpenMP's threads sleep soon when they wait. To be called before torch is imported.

    On processors that somebody else uses too, waiting awake took a hundred times what was
    waited for. Whoever has set how to wait is obeyed.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(environ):
        environ["GOMP_SPINCOUNT"] = _WAIT_TURNS
