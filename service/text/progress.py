"""Windows done in any order -> segments in the recording's order, each as soon as it is certain."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from service.text.stitch import WindowText, follow_on
from service.types import Segment, Window


class InOrder:
    """Segments of a recording of `duration_s` seconds, in order of time, then channel.

    A window's segments wait for the windows before it on its channel, and for those of other
    channels that may still say something earlier. Ids are consecutive from 0.
    """

    def __init__(self, windows: Iterable[Window], duration_s: float) -> None:
        self._duration_s = duration_s
        self._channels: dict[int, _Channel] = {}
        self._num_given = 0
        for window in windows:
            self._channel(window).waiting.append((window.index, window.start_s))

    def add(self, done: Sequence[WindowText]) -> list[Segment]:
        """The segments that the last window to be done makes certain, given its parts in order."""
        self._channel(done[0].window).settle(done, self._duration_s)
        given: list[Segment] = []
        while (channel := self._next()) is not None:
            given.append(replace(channel.ready.popleft(), id=self._num_given))
            self._num_given += 1
        return given

    def _channel(self, window: Window) -> _Channel:
        number = window.channel or 0
        return self._channels.setdefault(number, _Channel(number))

    def _next(self) -> _Channel | None:
        """The channel that speaks next, or None where that is not known yet."""
        first = min(self._channels.values(), key=lambda channel: channel.speaks_at)
        return first if first.ready else None


@dataclass(slots=True)
class _Channel:
    """One channel: windows (index, start) that are not settled, what they said, what is ready."""

    number: int
    waiting: deque[tuple[int, float]] = field(default_factory=deque)
    done: dict[int, Sequence[WindowText]] = field(default_factory=dict)
    ready: deque[Segment] = field(default_factory=deque)
    last: Segment | None = None

    @property
    def speaks_at(self) -> tuple[float, int]:
        """The earliest that this channel can have its next segment; infinity where it has none."""
        if self.ready:
            return self.ready[0].start, self.number
        return (self.waiting[0][1] if self.waiting else math.inf), self.number

    def settle(self, done: Sequence[WindowText], duration_s: float) -> None:
        self.done[done[0].window.index] = done
        while self.waiting and self.waiting[0][0] in self.done:
            index, _ = self.waiting.popleft()
            segments = follow_on(self.done.pop(index), self.last, duration_s)
            self.ready += segments
            self.last = segments[-1] if segments else self.last


class RunningText:
    """The text of a recording, a few segments at a time.

    White space at the beginning is left out, and at the end held back until something follows.
    Where channels are kept apart, each turn is a line of its own that names its channel.
    """

    def __init__(self) -> None:
        self._begun = False
        self._held = ""
        self._channel: int | None = None

    def add(self, segments: Sequence[Segment]) -> str:
        """What these segments add to the text."""
        added = ""
        for segment in segments:
            text = segment.text
            if segment.channel is not None and segment.channel != self._channel:
                self._channel, self._held = segment.channel, "\n" if self._begun else ""
                text = f"{channel_mark(segment.channel)} {text.lstrip()}"
            text = self._held + (text if self._begun else text.lstrip())
            said = text.rstrip()
            self._held = text[len(said) :]
            self._begun = self._begun or bool(said)
            added += said
        return added


def channel_mark(channel: int) -> str:
    """How text names a channel. People count from 1."""
    return f"Channel {channel + 1}:"


def whole_text(segments: Sequence[Segment]) -> str:
    """The text of the recording."""
    return RunningText().add(segments)
