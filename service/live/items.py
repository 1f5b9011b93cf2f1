"""Turns as items of a conversation, which OpenAI's Realtime counts in. Pure: events in and out.

An item is one turn: what was said between two commits, or between two pauses. A long one is
transcribed in several utterances, each of which adds to the item's text as soon as it is final.
Items are completed in their order.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass, field

from service.errors import WinnowError
from service.languages import WRITTEN_WITHOUT_SPACES
from service.live.messages import Cleared, Committed, Event
from service.live.session import Final, TurnBegun, TurnEnded
from service.types import Segment

ID_BYTES = 10


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody speaks; the item's audio begins `at` seconds of the stream, padding included."""

    item_id: str
    at: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """There was a pause, which was long enough `at` seconds of the stream."""

    item_id: str
    at: float


@dataclass(frozen=True, slots=True)
class ItemCommitted:
    """The item is complete, and its text on the way. `previous`: the id of the one before."""

    item_id: str
    previous: str | None


@dataclass(frozen=True, slots=True)
class Added:
    """What the item's text goes on with, which never changes; `segments` say it in detail."""

    item_id: str
    text: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Completed:
    """The item's text: that of every Added, joined. `seconds`: of its audio."""

    item_id: str
    text: str
    segments: tuple[Segment, ...]
    languages: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A part of the item could not be transcribed."""

    item_id: str
    error: WinnowError


ItemEvent = SpeechStarted | SpeechStopped | ItemCommitted | Added | Completed | Failed | Cleared


@dataclass(slots=True)
class _Item:
    """A turn so far. `pending`: the utterances of it that have no final yet, by `seq`."""

    id: str = field(default_factory=lambda: f"item_{secrets.token_hex(ID_BYTES)}")
    pending: set[int] = field(default_factory=set)
    started: float | None = None
    seconds: float = 0.0
    text: str = ""
    segments: tuple[Segment, ...] = ()
    languages: tuple[str, ...] = ()
    error: WinnowError | None = None

    @property
    def is_empty(self) -> bool:
        return self.started is None and not self.pending and not self.text

    def add(self, final: Final) -> str:
        """Takes a final of its own; what it adds to the text."""
        self.pending.remove(final.seq)
        self.error = self.error or final.error
        if not final.text:
            return ""
        apart = self.text and final.language not in WRITTEN_WITHOUT_SPACES
        added = f" {final.text}" if apart else final.text
        self.text += added
        self.segments += final.segments
        if final.language not in self.languages:
            self.languages += (final.language,)
        return added


class Items:
    """The items of one session. `by_pause`: a pause completes one; else only a commit does.

    A turn of more than `max_seconds` is completed where it next pauses.
    """

    def __init__(self, max_seconds: float) -> None:
        self.by_pause = True
        self._max_seconds = max_seconds
        self._open = _Item()
        self._waiting: deque[_Item] = deque()
        self._last_id: str | None = None
        self._from = 0.0

    @property
    def num_waiting(self) -> int:
        """Items that are complete and have no text yet."""
        return len(self._waiting)

    def uncommitted_s(self, at: float) -> float:
        """Of a stream that stands `at` seconds, how much is in no item."""
        return at - self._from

    def on(self, event: Event) -> list[ItemEvent]:
        """What becomes of the items by this event of the conversation."""
        match event:
            case TurnBegun(start):
                return self._begun(start)
            case TurnEnded():
                return self._ended(event)
            case Final():
                return self._final(event)
            case Committed(at):
                return self._commit(at)
            case Cleared(at):
                self._open, self._from = _Item(), at
                return [event]
        return []

    def close(self, at: float) -> list[ItemEvent]:
        """The stream has ended `at` seconds: what was said since the last commit is an item."""
        return [] if self._open.is_empty else self._commit(at)

    def _begun(self, start: float) -> list[ItemEvent]:
        first = self._open.started is None
        if first:
            self._open.started = start
        return [SpeechStarted(self._open.id, start)] if first and self.by_pause else []

    def _ended(self, turn: TurnEnded) -> list[ItemEvent]:
        self._open.pending.add(turn.seq)
        if turn.paused and self.by_pause:
            return [SpeechStopped(self._open.id, turn.end), *self._commit(turn.end)]
        return self._commit(turn.end) if turn.end - self._from > self._max_seconds else []

    def _final(self, final: Final) -> list[ItemEvent]:
        item = next((one for one in (*self._waiting, self._open) if final.seq in one.pending), None)
        if item is None:  # its audio was cleared
            return []
        text = item.add(final)
        added: list[ItemEvent] = [Added(item.id, text, final.segments)] if text else []
        return [*added, *self._settled()]

    def _commit(self, at: float) -> list[ItemEvent]:
        item, self._open = self._open, _Item()
        began = item.started if self.by_pause and item.started is not None else self._from
        item.seconds = at - began
        committed = ItemCommitted(item.id, self._last_id)
        self._last_id, self._from = item.id, at
        self._waiting.append(item)
        return [committed, *self._settled()]

    def _settled(self) -> list[ItemEvent]:
        """Those that are done, as far as none before them is not."""
        done: list[ItemEvent] = []
        while self._waiting and not self._waiting[0].pending:
            item = self._waiting.popleft()
            if item.error is not None:
                done.append(Failed(item.id, item.error))
                continue
            said = (item.text, item.segments, item.languages, round(item.seconds, 3))
            done.append(Completed(item.id, *said))
        return done
