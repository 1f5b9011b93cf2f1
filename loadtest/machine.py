"""On what a run was measured."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of the generator. `gpus` is what nvidia-smi lists, nothing without it."""

    cpu: str
    cores: int
    cores_allowed: int
    memory_gb: float
    gpus: tuple[str, ...]
    python: str
    torch: str | None
    locust: str


def this_machine() -> Machine:
    """The machine that this runs on."""
    return Machine(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        cores_allowed=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        gpus=_gpus(),
        python=platform.python_version(),
        torch=_version("torch"),
        locust=_version("locust") or "",
    )


def is_here(host: str) -> bool:
    """Whether a URL's host is this machine: one of its addresses can be bound to."""
    try:
        found = socket.getaddrinfo(urlsplit(host).hostname, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_is_own(family, address) for family, _, _, _, address in found)


def _is_own(family: int, address: tuple[str, int] | tuple[str, int, int, int] | object) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(address)  # type: ignore[arg-type]  # as getaddrinfo gave it
        except OSError:
            return False
    return True


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (ln.partition(":")[2].strip() for ln in lines if ln.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _gpus() -> tuple[str, ...]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(listed.stdout.strip().splitlines())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
