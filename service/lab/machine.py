"""On what, from what and how a figure came to be."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from service import __version__
from service.model.protocol import ModelInfo

CPU_INFO = Path("/proc/cpuinfo")
FLAGS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimddp", "bf16"),
)


def about(arguments: Sequence[str], info: ModelInfo, threads: int = 0) -> dict[str, Any]:
    """Version, commit, command, date, model and machine. No path of this machine is in it."""
    return {
        **origin(arguments),
        "model": {
            "name": Path(info.name).name if os.path.isabs(info.name) else info.name,
            "parameters": info.num_parameters,
            "device": info.device,
            "dtype": info.dtype,
            "weight_dtype": info.weight_dtype,
        },
        "machine": machine(info.device, threads),
    }


def origin(arguments: Sequence[str]) -> dict[str, Any]:
    """Version, commit, command and date."""
    return {
        "winnow": __version__,
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command(arguments),
    }


def command(arguments: Sequence[str]) -> str:
    """The command line with names in the place of paths from the root or the home folder."""
    return " ".join(["winnow", *map(_without_folder, arguments)])


def _without_folder(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if not (equals and option.startswith("--")):
        option, equals, value = "", "", argument
    outside = os.path.isabs(value) or value.startswith(("~", ".."))
    return option + equals + (Path(value).name if outside else value)


def machine(device: str, threads: int = 0) -> dict[str, Any]:
    """The processor, and the GPU where one is used. `threads` of torch; 0: its own choice."""
    found: dict[str, Any] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "flags": [],
        "threads": threads or torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if CPU_INFO.exists():
        lines = (line.partition(":") for line in CPU_INFO.read_text().splitlines())
        values = {name.strip(): value.strip() for name, _, value in lines}
        found["cpu"] = values.get("model name", found["cpu"])
        flags = (values.get("flags") or values.get("Features") or "").split()
        found["flags"] = [flag for flag in FLAGS if flag in flags]
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _commit() -> str | None:
    """That of the folder the code is in, with a + where it was changed since."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        asked = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
