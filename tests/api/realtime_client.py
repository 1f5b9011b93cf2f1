"""OpenAI's own client in a transcription session, and a socket for what it would never send."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import soxr
from openai import OpenAI
from openai.resources.realtime.realtime import RealtimeConnection
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from service.types import SAMPLE_RATE

from .harness import PATIENCE_S, Running
from .live_client import close_of

TRANSCRIPTION = "conversation.item.input_audio_transcription"
RATE = 24_000
STEP_S = 0.2


def at_24k(audio: bytes) -> bytes:
    """PCM at 16 kHz, at 24 kHz."""
    samples = np.frombuffer(audio, "<i2").astype(np.float32)
    return bytes(soxr.resample(samples, SAMPLE_RATE, RATE).round().astype("<i2").tobytes())


class Client:
    """One session. `events` holds what came, in the types of OpenAI's client."""

    def __init__(self, connection: RealtimeConnection) -> None:
        self.connection = connection
        self.events: list[Any] = []

    def update(self, include: list[str] | None = None, **given: Any) -> Any:
        """Sends `audio.input` and returns the session in effect."""
        session: Any = {"type": "transcription", "audio": {"input": given}}
        self.connection.session.update(session=session | ({"include": include} if include else {}))
        return self.until("session.updated").session

    def append(self, audio: bytes, step: int = round(2 * RATE * STEP_S)) -> None:
        for at in range(0, len(audio), step):
            part = base64.b64encode(audio[at : at + step]).decode()
            self.connection.input_audio_buffer.append(audio=part)

    def commit(self) -> None:
        self.connection.input_audio_buffer.commit()

    def next(self) -> Any:
        raw = self.connection._connection.recv(timeout=PATIENCE_S)
        event = self.connection.parse_event(raw)
        self.events.append(event)
        return event

    def until(self, kind: str) -> Any:
        """The next event of this type, or whose type ends in it."""
        while not (event := self.next()).type.endswith(kind):
            pass
        return event

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.type.endswith(kind)]

    def said(self, audio: bytes) -> Any:
        """Commits the audio; its `completed`, or `failed`."""
        self.append(audio)
        self.commit()
        while not (event := self.next()).type.startswith(TRANSCRIPTION) or (
            event.type.endswith("delta")
        ):
            pass
        return event


@contextmanager
def openai_realtime(server: Running, query: Any = None, **given: Any) -> Iterator[Client]:
    """A session of OpenAI's client, with this `audio.input` where some is given."""
    client = OpenAI(base_url=f"{server.url}/v1", api_key="any")
    asked = query or {"intent": "transcription"}
    with client.realtime.connect(extra_query=asked) as connection:
        one = Client(connection)
        one.until("session.created")
        if given:
            one.update(**given)
        yield one


class Raw:
    """A socket that sends what it is told to."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[dict[str, Any]] = []

    def send(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(timeout=PATIENCE_S))
        self.messages.append(message)
        return message

    def error(self) -> dict[str, Any]:
        """The next message, which has to be an error."""
        message = self.next()
        assert message["type"] == "error", message
        error: dict[str, Any] = message["error"]
        assert set(error) == {"type", "code", "message", "param", "event_id"}
        return error

    def update(self, session: Any) -> dict[str, Any]:
        self.send({"type": "session.update", "session": session})
        return self.next()

    def close_code(self) -> tuple[int, str]:
        """Reads to the end; how the server closed."""
        return close_of(self.next)


@contextmanager
def raw(
    server: Running, query: str = "intent=transcription", protocols: tuple[str, ...] = ()
) -> Iterator[Raw]:
    """A plain WebSocket to /v1/realtime; nothing is read yet."""
    url = server.url.replace("http", "ws") + f"/v1/realtime?{query}"
    offered = [Subprotocol(name) for name in protocols] or None
    with connect(
        url, open_timeout=PATIENCE_S, close_timeout=1, compression=None, subprotocols=offered
    ) as socket:
        yield Raw(socket)


def hello(one: Raw) -> dict[str, Any]:
    """The session that was created."""
    message = one.next()
    assert message["type"] == "session.created"
    session: dict[str, Any] = message["session"]
    return session
