"""What a container's limits leave of a machine, as files of cgroups say it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.threads import allowed, usable_threads, wait_briefly

V2 = "0::/"
V1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:cpuset:/docker/abc\n"
V1_HERE, V1_HOST = "sys/fs/cgroup/cpu/", "sys/fs/cgroup/cpu/docker/abc/"


def quota(folder: str, quota_us: int) -> dict[str, str]:
    return {
        f"{folder}cpu.cfs_quota_us": f"{quota_us}\n",
        f"{folder}cpu.cfs_period_us": "100000\n",
    }


@pytest.mark.parametrize(
    ("membership", "files", "threads"),
    [
        ("", {}, 8),
        (V2, {}, 8),
        (V2, {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        (V2, {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        # Rounded down, for what is above is waited for; but nothing runs on none.
        (V2, {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        (V2, {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (V2, {"sys/fs/cgroup/cpu.max": "6400000 100000\n"}, 8),
        # A pod's limit holds for its containers, and the tightest of all counts.
        (
            "0::/pod/one\n",
            {
                "sys/fs/cgroup/pod/one/cpu.max": "max 100000\n",
                "sys/fs/cgroup/pod/cpu.max": "150000 50000\n",
                "sys/fs/cgroup/cpu.max": "400000 100000\n",
            },
            3,
        ),
        ("0::/pod/other\n", {"sys/fs/cgroup/pod/one/cpu.max": "100000 100000\n"}, 8),
        (V1, quota(V1_HOST, 400_000), 4),
        (V1, quota(V1_HERE, 300_000), 3),
        (V1, quota(V1_HERE, -1), 8),
        (V1, {f"{V1_HERE}cpu.cfs_quota_us": "300000\n"}, 8),
        # Both versions at once: the second has no cpu controller there.
        (V1 + V2, quota(V1_HERE, 300_000), 3),
        ("nonsense\n::\n", {"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 8),
        (V2, {"sys/fs/cgroup/cpu.max": "many 0\n"}, 8),
        (V2, {"sys/fs/cgroup/cpu.max": "100000 0\n"}, 8),
    ],
)
def test_the_tightest_limit_counts(membership: str, files: dict[str, str], threads: int) -> None:
    known = {"proc/self/cgroup": membership, **files}
    assert allowed(8, lambda path: known.get(path, "")) == threads


def test_files_are_read_and_affinity_counts(tmp_path: Path) -> None:
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert usable_threads(tmp_path) == here
    for name, text in (("proc/self/cgroup", V2), ("sys/fs/cgroup/cpu.max", "100000 100000\n")):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert usable_threads(tmp_path) == 1


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({}, {"GOMP_SPINCOUNT": "10000"}),
        ({"GOMP_SPINCOUNT": "5"}, {}),
        ({"OMP_WAIT_POLICY": "active"}, {}),
    ],
)
def test_who_says_how_to_wait_is_obeyed(given: dict[str, str], more: dict[str, str]) -> None:
    environ = dict(given)
    wait_briefly(environ)
    assert environ == given | more
