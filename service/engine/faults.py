"""What went wrong, by what follows from it: a window failed, memory ran out, the device is gone.

A window that fails alone is the model's to name (`WindowsFailedError`). What else is raised is
traced to its window by halves, unless it is memory: then everybody goes on, fewer at a time.
"""

from __future__ import annotations

import gc
import logging
import traceback

import torch

from service.errors import EngineError
from service.memory import give_back

log = logging.getLogger(__name__)

# Of torch's CPU allocator, which raises RuntimeError.
_NO_MEMORY_ON_A_CPU = "can't allocate memory"
GROW_AFTER = 64  # windows answered: time enough for what held the memory to be over


class DeviceLostError(Exception):
    """A silent window failed as well; the message is the device's, and free of user data."""


class DeviceGoneError(Exception):
    """The device was lost, and has been for as long as anybody waits for one."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether less at a time may do what failed."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _NO_MEMORY_ON_A_CPU in str(error)


def failed_window(error: Exception) -> EngineError:
    """What a window's request is told of an error that is its own."""
    if is_out_of_memory(error):
        return EngineError("there is not enough memory for this window")
    return EngineError(f"the model failed on this window ({type(error).__name__})")


def report(stage: str, num_windows: int, error: Exception) -> None:
    """Logs where it was raised. Not its message, which may quote what it failed on: no audio and
    no text in logs. The frames it was raised through let go of what they hold."""
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s failed, %d windows, %s\n%s", stage, num_windows, type(error).__name__, where)
    traceback.clear_frames(error.__traceback__)


def give_back_memory() -> None:
    """To the device and the system, what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back()


class Room:
    """How many windows are decoded at once: fewer after memory ran out, then slowly more."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._answered = 0
        self.limit = most

    def shrink(self, limit: int) -> None:
        """At most `limit` from now on, at least one."""
        self.limit = min(self.limit, max(1, limit))
        self._answered = 0

    def restore(self) -> None:
        """It was one window's fault: others were not too many."""
        self.limit = self._most

    def answered(self) -> None:
        """One more after every `GROW_AFTER` windows that were answered."""
        self._answered += 1
        if self._answered >= GROW_AFTER and self.limit < self._most:
            self.limit += 1
            self._answered = 0
