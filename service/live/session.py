"""What a live session is between two moments: explicit state, changed on the event loop only.

A session outlives its connections. Audio leaves it only when it holds no speech or its final has
been made, a final only when it was acknowledged, so a connection may break at any point.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.audio import endpoint, vad
from service.audio.endpoint import USUAL, Manner
from service.audio.segment import loudness
from service.audio.stream import open_stream
from service.audio.vad import CHUNK_SAMPLES
from service.errors import InvalidRequest, WinnowError
from service.live.buffer import SampleBuffer
from service.types import SAMPLE_RATE, Samples, Segment, TranscribeRequest, Window

# Audio is taken in parts of at most a second, and a resampler may hold a little back and give it
# with the next part.
PART_SAMPLES = SAMPLE_RATE + SAMPLE_RATE // 10
PARTIAL_EVERY = SAMPLE_RATE  # samples of new speech between two partials
# Finals that are kept for a client that never acknowledges: many more than can be on their way
# when a connection breaks.
KEPT_FINALS = 1024


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """What a session was started with. `sample_rate` (Hz) and `channels` are those of PCM.

    `model`: its name. `manner`: what a pause is. `partials`, `turns`: whether to send partials, and
    word of when somebody begins and ends to speak.
    """

    model: str
    request: TranscribeRequest
    encoding: str = "pcm_s16le"
    sample_rate: int = SAMPLE_RATE
    channels: int = 1
    manner: Manner = USUAL
    partials: bool = True
    turns: bool = False

    @property
    def sound(self) -> tuple[str, int, int]:
        """How its bytes are decoded: encoding, rate and channels."""
        return self.encoding, self.sample_rate, self.channels


@dataclass(frozen=True, slots=True)
class Spoken:
    """A finished utterance that waits for its final, which is made as `request` says.

    `heard_at` is on `time.monotonic()`.
    """

    window: Window
    request: TranscribeRequest
    heard_at: float


@dataclass(frozen=True, slots=True)
class TurnBegun:
    """Somebody began to speak. `start`: where the utterance to come begins, in seconds."""

    start: float


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """An utterance ended, whose final will have this `seq`. `end`: how far the stream had come,
    in seconds. `paused`: there was a pause; without one, the same turn may go on."""

    seq: int
    start: float
    end: float
    paused: bool


Turn = TurnBegun | TurnEnded


@dataclass(frozen=True, slots=True)
class Partial:
    """What the open utterance sounds like so far; the final with its `id` replaces it."""

    id: int
    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Final:
    """The text of one utterance, which never changes; empty where nothing was said.

    `seq` counts from 1 without gaps. `error`: why this utterance has no text.
    """

    seq: int
    start: float
    end: float
    text: str
    language: str
    segments: tuple[Segment, ...] = ()
    error: WinnowError | None = None


class Session:
    """One speaker's stream: audio in, utterances out, finals kept until acknowledged.

    At most `max_samples` of audio are held; `has_room` says when a part may be taken.
    """

    def __init__(self, session_id: str, asked: LiveRequest, max_samples: int) -> None:
        self.id = session_id
        self.asked = asked
        self.stream = open_stream(*asked.sound)
        self.received_bytes = 0
        self.spoken: deque[Spoken] = deque()
        self.last_seq = 0
        self.changed = asyncio.Event()  # audio was heard, or an utterance ended
        self.roomy = asyncio.Event()  # audio was let go
        self._max_samples = max_samples
        self._audio = SampleBuffer()
        self._vad = vad.led_in()
        self._endpoint = endpoint.Endpoint(asked.manner)
        self._filled = 0  # samples of silence that completed chunks: no time of the client's
        self._finals: deque[Final] = deque()
        self._to_fill = 0
        self._spoken_samples = 0
        self._partial_at = 0

    @property
    def buffered(self) -> int:
        """Samples held: of the stream's end, and of utterances that wait for their finals."""
        return len(self._audio) + self._spoken_samples

    @property
    def received_s(self) -> float:
        return self._seconds(self._audio.last - self._to_fill + self.stream.num_held)

    @property
    def has_room(self) -> bool:
        """Whether a part of a second can be taken. Never False for long: an open utterance is cut
        before it fills the buffer, and ended ones leave it."""
        return self.buffered + PART_SAMPLES <= self._max_samples

    def take(self, part: bytes) -> None:
        """Takes a part of a message, or raises InvalidAudio; its bytes count in any case."""
        self.received_bytes += len(part)
        self._audio.append(self.stream.decode(part))

    def unheard(self) -> Samples:
        """The whole chunks that the VAD has not heard; empty where there are none."""
        first = self._endpoint.at * CHUNK_SAMPLES
        whole = (self._audio.last - first) // CHUNK_SAMPLES * CHUNK_SAMPLES
        return self._audio.copy(first, first + whole)

    def vad_state(self) -> vad.VadState:
        return self._vad

    def hear(self, state: vad.VadState, probabilities: vad.Probabilities) -> list[Turn]:
        """Applies what the VAD made of `unheard`."""
        chunks = self.unheard()[: len(probabilities) * CHUNK_SAMPLES]
        self._vad = state
        self._endpoint, marks = endpoint.advance(self._endpoint, probabilities, loudness(chunks))
        return self._apply(marks)

    def fill_chunk(self) -> None:
        """Takes what the decoder holds back, and completes the chunk that has begun with silence,
        so that all of it can be heard. `finish` comes after it."""
        self._audio.append(self.stream.rest())
        missing = -self._audio.last % CHUNK_SAMPLES
        self._audio.append(np.zeros(missing, np.float32))
        self._to_fill += missing

    def finish(self) -> list[Turn]:
        """Ends the open utterance where the stream stands."""
        self._endpoint, marks = endpoint.finish(self._endpoint)
        turns = self._apply(marks)
        self._count_fill()
        return turns

    def clear(self) -> None:
        """Forgets the audio that is in no finished utterance. What is heard of next is new."""
        self.fill_chunk()
        at = self._audio.last // CHUNK_SAMPLES
        self._endpoint = endpoint.clear(replace(self._endpoint, at=at))
        self._vad = vad.led_in()
        self._count_fill()
        self._let_go()

    def change(self, asked: LiveRequest) -> None:
        """Goes on as `asked` from here: what is finished stays as it was asked for."""
        if asked.sound != self.asked.sound:
            self._audio.append(self.stream.rest())
            self.stream = open_stream(*asked.sound)
        held_from = -(-self._audio.first // CHUNK_SAMPLES)
        self._endpoint = endpoint.change(self._endpoint, asked.manner, held_from)
        self.asked = asked

    def partial_window(self) -> Window | None:
        """The open utterance, where it has grown by a second since this was last asked."""
        so_far = endpoint.Utterance(self._endpoint.opened, self._endpoint.at)
        opened, heard = so_far.first * CHUNK_SAMPLES, so_far.last * CHUNK_SAMPLES
        if opened < 0 or heard - max(opened, self._partial_at) < PARTIAL_EVERY:
            return None
        self._partial_at = heard
        return self._window(so_far)

    def likely_window(self) -> Window | None:
        """The utterance that ends if the pause goes on, exactly as it will be then."""
        likely = self._endpoint.likely
        return None if likely is None else self._window(likely)

    @property
    def next_id(self) -> int:
        """The seq that the final of the open utterance will have."""
        return self.last_seq + len(self.spoken) + 1

    def complete(self, final: Final) -> None:
        """The final of the utterance that waits longest."""
        done = self.spoken.popleft()
        self._spoken_samples -= len(done.window.samples)
        self.last_seq = final.seq
        self._finals.append(final)
        if len(self._finals) > KEPT_FINALS:
            self._finals.popleft()
        self.roomy.set()

    def acknowledge(self, seq: int) -> None:
        """Forgets finals up to `seq`. Raises InvalidRequest for one that was not made yet."""
        self._check_seq("seq", seq)
        while self._finals and self._finals[0].seq <= seq:
            self._finals.popleft()

    def resume(self, after: int) -> None:
        """The client has every final up to `after`.

        Raises InvalidRequest where that cannot be, or where later ones are forgotten.
        """
        self._check_seq("after", after)
        oldest = self._finals[0].seq if self._finals else self.last_seq + 1
        if after + 1 < oldest:
            raise InvalidRequest(
                f"after {after}: the finals before {oldest} are forgotten; they were acknowledged, "
                f"or are more than {KEPT_FINALS:,} back",
                "after",
            )
        self.acknowledge(after)

    def unacknowledged(self) -> tuple[Final, ...]:
        return tuple(self._finals)

    def _check_seq(self, name: str, seq: int) -> None:
        if seq > self.last_seq:
            raise InvalidRequest(
                f"{name} {seq}: this session has made {self.last_seq} finals", name
            )

    def _apply(self, marks: Sequence[endpoint.Mark]) -> list[Turn]:
        turns: list[Turn] = []
        for mark in marks:
            match mark:
                case endpoint.Begun(first):
                    turns.append(TurnBegun(self._seconds(first * CHUNK_SAMPLES)))
                case endpoint.Ended(utterance, at, paused):
                    window = self._window(utterance)
                    self.spoken.append(Spoken(window, self.asked.request, time.monotonic()))
                    self._spoken_samples += len(window.samples)
                    end_s = self._seconds(at * CHUNK_SAMPLES)
                    turns.append(TurnEnded(window.index, window.start_s, end_s, paused))
        self._let_go()
        return turns

    def _let_go(self) -> None:
        self._audio.drop_before(self._endpoint.needed_from * CHUNK_SAMPLES)
        self.roomy.set()
        self.changed.set()

    def _count_fill(self) -> None:
        self._filled += self._to_fill
        self._to_fill = 0

    def _seconds(self, sample: int) -> float:
        return (sample - self._filled) / SAMPLE_RATE

    def _window(self, one: endpoint.Utterance) -> Window:
        first = one.first * CHUNK_SAMPLES
        last = min(one.last * CHUNK_SAMPLES, self._audio.last - self._to_fill)
        return Window(self.next_id, self._seconds(first), self._audio.copy(first, last))
