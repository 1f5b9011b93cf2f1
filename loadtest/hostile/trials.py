"""A trial is what is sent over one connection, all of it bytes: the same seed and number make the
same ones on every machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from random import Random

LIVE, REALTIME = "/live", "/v1/realtime?intent=transcription"


class Due(Enum):
    """What the service owes."""

    ANSWER = "an HTTP answer, whole, and in case of an error in the shape of all errors"
    END = "an answer or the end of the connection: the client has no more to say"
    SOCKET = "a WebSocket that ends with a close frame"
    NOTHING = "nothing: the client leaves"


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes, and the seconds that the client waits after them. `answered`: it waits until the
    head of an answer is there."""

    data: bytes
    pause_s: float = 0.0
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """`kind`: file, form, frame or connection; `what`: it in words; `path`: where it goes."""

    number: int
    kind: str
    what: str
    path: str
    sends: tuple[Send, ...]
    due: Due

    @property
    def content(self) -> bytes:
        return b"".join(send.data for send in self.sends)


@dataclass(frozen=True, slots=True)
class Target:
    """The service: `host` for the head of a request, `prefix` of its paths."""

    host: str
    prefix: str = ""

    def head(self, method: str, path: str, headers: Mapping[str, str | int] | None = None) -> bytes:
        """A request's head, of a connection that ends with the answer unless `headers` differ."""
        lines = {"Host": self.host, "Connection": "close"} | dict(headers or {})
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        start = f"{method} {self.prefix}{path} HTTP/1.1\r\n"
        return f"{start}{text}\r\n".encode("latin-1", "replace")


Made = tuple[str, str, tuple[Send, ...], Due]  # what, path, sends, due
Maker = Callable[[Random, Target], Made]


def make(seed: int, number: int, target: Target, makers: Mapping[str, tuple[int, Maker]]) -> Trial:
    """Trial `number` of the run that `seed` names. `makers`: by kind, with their weights."""
    rng = Random(f"{seed}/{number}")
    kinds = list(makers)
    (kind,) = rng.choices(kinds, [makers[kind][0] for kind in kinds])
    what, path, sends, due = makers[kind][1](rng, target)
    return Trial(number, kind, what, path, sends, due)
