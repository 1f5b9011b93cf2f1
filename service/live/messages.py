"""What a conversation is told, and what it tells, beside audio, finals and turns."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import InvalidAudio
from service.live.session import Final, LiveRequest, Partial, Turn


@dataclass(frozen=True, slots=True)
class Ack:
    """The client has every final up to `seq`."""

    seq: int


@dataclass(frozen=True, slots=True)
class Flush:
    """The speaker has paused, whatever the audio says."""


@dataclass(frozen=True, slots=True)
class Stop:
    """There will be no more audio."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A turn is complete, whatever the audio says."""


@dataclass(frozen=True, slots=True)
class Clear:
    """Audio that is in no finished utterance is not meant to be heard."""


@dataclass(frozen=True, slots=True)
class Change:
    """The session goes on as `asked`."""

    asked: LiveRequest


@dataclass(frozen=True, slots=True)
class Committed:
    """A Commit took effect where the stream stood `at`, in seconds; every utterance before it has
    ended."""

    at: float


@dataclass(frozen=True, slots=True)
class Cleared:
    """A Clear took effect where the stream stood `at`, in seconds."""

    at: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that was passed over, and why."""

    error: InvalidAudio


Message = bytes | Ack | Flush | Stop | Commit | Clear | Change
Event = Partial | Final | Refused | Turn | Committed | Cleared
