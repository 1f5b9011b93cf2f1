"""The recordings that paths mean: files, pipes, standard input, and what folders hold."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from service.audio.suffixes import AUDIO_SUFFIXES
from service.errors import ConfigError, WinnowError
from service.text.formats import FORMATS

STDIN = Path("-")
STDIN_NAME = "<stdin>"  # in messages
OUTPUT_SUFFIXES = {name: f".{name}" for name in FORMATS} | {
    "text": ".txt",
    "verbose_json": ".verbose.json",
}
# What systems put beside people's files. So do they with all whose names begin with a dot: macOS
# writes `._a.wav`, no sound in it, next to an `a.wav` on a disk that is not its own.
SYSTEM_NAMES = ("$recycle.bin", "@eadir", "__macosx", "desktop.ini", "system volume information",
                "thumbs.db")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """A recording to transcribe; `relative` is what its output is named after."""

    path: Path
    relative: Path

    @property
    def name(self) -> str:
        """What messages call it. Printable: a name on disk may be any bytes."""
        if self.path == STDIN:
            return STDIN_NAME
        return os.fsencode(self.path).decode(errors="backslashreplace")

    @property
    def is_stream(self) -> bool:
        """Whether it can be read once only, from its beginning to its end."""
        return self.path == STDIN or (self.path.exists() and not self.path.is_file())


@dataclass(frozen=True, slots=True)
class Found:
    """The recordings, each once; a sentence for each path that gave none; what was passed over.

    `passed_over`: how many files in folders have names of other things than recordings, by suffix.
    """

    sources: tuple[Source, ...]
    problems: tuple[str, ...]
    passed_over: Counter[str]


def find(paths: Sequence[Path]) -> Found:
    """The recordings of files and folders. A file that is named is one whatever its suffix."""
    sources: dict[Path, Source] = {}
    problems: list[str] = []
    passed_over: Counter[str] = Counter()
    for path in paths:
        if path == STDIN:
            inside = [Source(STDIN, Path(STDIN_NAME.strip("<>")))]
        elif path.is_dir():
            folder = _Folder(path, problems, passed_over)
            inside = sorted(folder.sources(), key=lambda source: source.relative)
            if not inside and not folder.num_unread:
                problems.append(f"{path}: a folder without audio")
        elif path.exists():
            inside = [Source(path, Path(path.name))]
        else:
            inside = []
            problems.append(f"{path}: no such file or folder")
        for source in inside:
            sources.setdefault(Path(os.path.abspath(source.path)), source)
    return Found(tuple(sources.values()), tuple(problems), passed_over)


class _Folder:
    """One walk over a folder and all that it holds, folders that it links to included."""

    def __init__(self, root: Path, problems: list[str], passed_over: Counter[str]) -> None:
        self._root = root
        self._problems = problems
        self._passed_over = passed_over
        self.num_unread = 0

    def sources(self) -> Iterator[Source]:
        # Links last: what is in the folder itself goes by its own name. None is entered twice, so
        # that a link to a folder above it ends.
        seen: set[tuple[int, int]] = set()
        tops = [self._root]
        while tops:
            for here, folders, names in os.walk(tops.pop(0), onerror=self._unread):
                if (which := _identity(here)) in seen:
                    folders.clear()
                    continue
                seen.add(which)
                folders[:] = sorted(name for name in folders if not _is_companion(name))
                tops += [Path(here, name) for name in folders if Path(here, name).is_symlink()]
                for name in names:
                    if self._is_recording(Path(here, name)):
                        path = Path(here, name)
                        yield Source(path, path.relative_to(self._root))

    def _unread(self, error: OSError) -> None:
        self.num_unread += 1
        self._problems.append(f"{error.filename}: {error.strerror}")

    def _is_recording(self, path: Path) -> bool:
        if _is_companion(path.name):
            return False
        if path.suffix.lower() in AUDIO_SUFFIXES:
            # A link to what is not there any more is one that cannot be read, not one less.
            return path.is_file() or not path.exists()
        if not _is_output(path.name):
            self._passed_over[path.suffix.lower() or "no suffix"] += 1
        return False


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _is_companion(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _is_output(name: str) -> bool:
    """Whether it is what an earlier run wrote of a recording: `a.wav.txt`."""
    named_after = (Path(name.removesuffix(end)) for end in OUTPUT_SUFFIXES.values())
    return any(path.name != name and path.suffix.lower() in AUDIO_SUFFIXES for path in named_after)


@contextmanager
def spooled(source: Source) -> Iterator[BinaryIO]:
    """All of a pipe or of standard input, to be read in any order. Raises WinnowError."""
    with tempfile.TemporaryFile() as spool:
        try:
            with _opened(source) as stream:
                shutil.copyfileobj(stream, spool)
            spool.seek(0)
        except OSError as error:
            raise WinnowError(f"{source.name}: {error.strerror or error}") from error
        yield spool


def _opened(source: Source) -> BinaryIO:
    if source.path != STDIN:
        return source.path.open("rb")
    if sys.stdin is None or sys.stdin.closed:
        raise ConfigError("standard input is closed: `-` reads a recording from it")
    if sys.stdin.isatty():
        raise ConfigError(
            "standard input is a terminal: `-` reads a recording that is piped in, as in "
            "`winnow transcribe - < a.wav`"
        )
    return open(sys.stdin.fileno(), "rb", closefd=False)
