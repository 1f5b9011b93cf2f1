"""One exception tree. No HTTP in it: `api.errors` maps each class to a status once.

WinnowError
├── InvalidAudio            not audio, empty, corrupt, NaN
├── InvalidRequest          a parameter out of range; carries its name and the valid values
│   └── ModelNotFound       a model that is not served
├── TooLarge                more bytes, or more seconds after decoding, than allowed
├── TooSlow                 an upload that stalls, or trickles
├── StorageFull             an upload for which there is no room; carries retry_after_s
├── QueueFull               carries retry_after_s
├── NotReady                loading or draining; carries retry_after_s
├── DeadlineExceeded        the work was cancelled
├── Cancelled               the client left or asked for it
├── EngineError             the model or device failed on this window
├── ConfigError             a setting, profile or profiles file that cannot be used
├── CannotListen            an address that is taken, unknown or not allowed
└── CheckpointError         a model that cannot be loaded
"""

from __future__ import annotations


class WinnowError(Exception):
    """Any error that Winnow raises on purpose; its text is fit to show a user."""


class InvalidAudio(WinnowError):
    """The bytes are not audio that can be decoded."""


class InvalidRequest(WinnowError):
    """A parameter of the request is not valid. `param` names it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ModelNotFound(InvalidRequest):
    """The model that is asked for is not one that is served."""


class TooLarge(WinnowError):
    """A limit on bytes or decoded seconds was passed while reading."""


class TooSlow(WinnowError):
    """An upload came more slowly than the service waits for."""


class StorageFull(WinnowError):
    """What was uploaded cannot be stored; worth trying again in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(WinnowError):
    """No room for the request's windows; worth trying again in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(WinnowError):
    """The engine is loading, draining or broken."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(WinnowError):
    """The request's deadline passed before its last window was done."""


class Cancelled(WinnowError):
    """The request was cancelled before it was done."""


class EngineError(WinnowError):
    """The model or the device failed on this window."""


class ConfigError(WinnowError):
    """A setting cannot be used; the message says what would be right."""


class CannotListen(WinnowError):
    """The address to serve on cannot be used; the message says which, and why."""


class CheckpointError(WinnowError):
    """A model cannot be loaded; the message says what would be right."""
