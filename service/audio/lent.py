"""A file lent to a thread that cannot be cancelled."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class LentFile(io.RawIOBase):
    """The caller's file, lent to an audio thread until it is taken back.

    A thread cannot be cancelled. Once the file is taken back the thread reads its end and soon
    gives up, and the caller may close the file: taking it back waits for a read in progress.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._lock = threading.Lock()
        self.taken_back = False

    def take_back(self) -> None:
        with self._lock:
            self.taken_back = True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        with self._lock:
            data = b"" if self.taken_back else self._source.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._lock:
            return 0 if self.taken_back else self._source.seek(offset, whence)

    def tell(self) -> int:
        with self._lock:
            return 0 if self.taken_back else self._source.tell()
