"""What Linux tells of audio workers' processes."""

from __future__ import annotations

import os
from pathlib import Path


def has_samples(pid: int) -> bool:
    """Whether an audio worker is in the midst of a recording that has a file of its own."""
    folder = Path(f"/proc/{pid}/fd")
    try:
        return any(
            os.readlink(entry).startswith("/memfd:") and entry.stat().st_size
            for entry in folder.iterdir()
        )
    except OSError:
        return False


def is_gone(pid: int) -> bool:
    """Ended, and its status was asked for."""
    return not Path(f"/proc/{pid}").exists()


def resident(pid: int) -> int:
    """Bytes in memory; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0


def is_dead(pid: int) -> bool:
    """Gone, or only its status is left: whose child it is now is not ours to say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
