"""A live client for tests: it sends what it is told to, and remembers everything it was told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from service.types import SAMPLE_RATE

from .harness import PATIENCE_S, Running, silence, voice

Message = dict[str, Any]
WAV_HEADER_BYTES = 44


def pcm(wav: bytes) -> bytes:
    """The samples of one of the harness's wav files."""
    return wav[WAV_HEADER_BYTES:]


def talk(*seconds: float) -> bytes:
    """PCM of voices of these lengths and different pitches, with a pause of 1 s after each."""
    pitches = (120.0, 150.0, 100.0, 180.0)
    return b"".join(
        pcm(voice(length, pitches[number % len(pitches)])) + pcm(silence(1))
        for number, length in enumerate(seconds)
    )


def opus_packets(samples: bytes, rate: int = SAMPLE_RATE) -> list[bytes]:
    """Mono PCM as opus packets of 20 ms."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = rate, "mono", "s16"
    values = np.frombuffer(samples, "<i2")
    packets = []
    step = rate // 50
    for at in range(0, len(values) - step + 1, step):
        frame = av.AudioFrame.from_ndarray(values[None, at : at + step], "s16", "mono")
        frame.sample_rate = rate
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets + [bytes(packet) for packet in encoder.encode(None)]


def close_of(read: Callable[[], object]) -> tuple[int, str]:
    """Reads to the end of a WebSocket; how the server closed."""
    try:
        while True:
            read()
    except ConnectionClosed as closed:
        end = closed.rcvd
    assert end is not None, "the connection broke off without a close"
    return end.code, end.reason


class LiveClient:
    """One connection. `messages` holds what came, `start` the first message's fields."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Message] = []

    def send(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def send_audio(self, audio: bytes, step: int = 6400) -> None:
        """In messages of 200 ms of 16 kHz PCM."""
        for at in range(0, len(audio), step):
            self.socket.send(audio[at : at + step])

    def next(self) -> Message:
        message: Message = json.loads(self.socket.recv(timeout=PATIENCE_S))
        self.messages.append(message)
        return message

    def until(self, kind: str) -> Message:
        """The next message of this type; those before it are remembered."""
        while (message := self.next())["type"] != kind:
            pass
        return message

    def close_code(self) -> tuple[int, str]:
        """Reads to the end; how the server closed."""
        return close_of(self.next)

    def of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def text(self) -> str:
        return " ".join(final["text"] for final in self.of("final") if final["text"])

    def vanish(self) -> None:
        """The connection breaks: no close frame, nothing more is read."""
        self.socket.socket.shutdown(2)


@contextmanager
def live(server: Running, start: bool = True, **fields: Any) -> Iterator[LiveClient]:
    """A connection to the server's /live, with a session that has started."""
    url = server.url.replace("http", "ws") + "/live"
    with connect(url, open_timeout=PATIENCE_S, close_timeout=1, compression=None) as socket:
        client = LiveClient(socket)
        if start:
            client.send(type="start", **fields)
            assert client.next()["type"] == "ready", client.messages
        yield client


def whole(server: Running, audio: bytes, **fields: Any) -> LiveClient:
    """A session from start to done, undisturbed."""
    with live(server, **fields) as client:
        client.send_audio(audio)
        client.send(type="stop")
        client.until("done")
        return client
