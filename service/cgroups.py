"""Where the limits of this process's cgroups are, of either version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_MEMBERSHIP, _CGROUPS = "proc/self/cgroup", PurePosixPath("sys/fs/cgroup")

# A file's text by its path from the root, "" for one that is not there.
Read = Callable[[str], str]


def reader(root: Path = Path("/")) -> Read:
    def read(path: str) -> str:
        try:
            return (root / path).read_text()
        except OSError:
            return ""

    return read


def folders(controller: str, read: Read) -> Iterator[tuple[int, str]]:
    """The version and the folder of the process's cgroup, and of all above it, for a controller.

    From /proc/self/cgroup, lines of `id:controllers:path`, of which version 2 has the id 0.
    """
    for line in read(_MEMBERSHIP).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and controller not in controllers.split(","):
            continue
        mounted = _CGROUPS if number == "0" else _CGROUPS / controller
        # A container may see its own cgroup at the mount itself while its path is the host's.
        own = PurePosixPath(path.lstrip("/"))
        for folder in (own, *own.parents):
            yield (2 if number == "0" else 1), str(mounted / folder)
