"""Where a batch is encoded: at once, or on a GPU beside the decode steps, on a stream of its own.

Encoding is bound by arithmetic and a step by memory, so a GPU can do one in the other's gaps. A
CPU has no gaps: what it does at once is done by all of its threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from service.engine.features import Features
from service.types import Encoded

Make = Callable[[], Features]
Encode = Callable[[Features], list[Encoded]]


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """What came of a batch, and the seconds that its features and its encoding took."""

    features: Features
    windows: list[Encoded]
    mel_s: float
    encode_s: float


class Pending(Protocol):
    """A batch that is being encoded, or has been."""

    def done(self) -> bool:
        """Whether `result` would not wait."""

    def wait(self) -> None:
        """Until it is done."""

    def result(self) -> Encoding:
        """Raises what went wrong."""


class Lane(Protocol):
    def begin(self, make: Make, encode: Encode) -> Pending:
        """Begins with a batch; what is raised meanwhile its `result` raises."""


def lane_for(device: str) -> Lane:
    return Beside(torch.device(device)) if device.startswith("cuda") else AtOnce()


class AtOnce:
    """What is begun is done."""

    def begin(self, make: Make, encode: Encode) -> Pending:
        begin = time.perf_counter()
        try:
            features = make()
            made = time.perf_counter()
            windows = encode(features)
        except Exception as error:
            return _Over(error)
        return _Over(Encoding(features, windows, made - begin, time.perf_counter() - made))


@dataclass(frozen=True, slots=True, eq=False)
class _Over:
    came: Encoding | Exception

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        pass

    def result(self) -> Encoding:
        if isinstance(self.came, Exception):
            raise self.came
        return self.came


class Beside:
    """On a stream of a GPU's own. The host goes on as soon as all is told to the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begin(self, make: Make, encode: Encode) -> Pending:
        main = torch.cuda.current_stream(self._device)
        began, made, ended = _event(), _event(), _event()
        self._stream.wait_stream(main)  # weights may just have been written
        try:
            with torch.cuda.stream(self._stream):
                began.record()
                features = make()
                made.record()
                windows = encode(features)
                ended.record()
        except Exception as error:
            return _Over(error)
        # Steps, and whoever finds words meanwhile, read them on the main stream: their memory is
        # not to be given to this one's next batch before that.
        for tensor in _tensors(features, windows):
            tensor.record_stream(main)
        return _OnStream(features, windows, began, made, ended)


@dataclass(frozen=True, slots=True, eq=False)
class _OnStream:
    features: Features
    windows: list[Encoded]
    began: torch.cuda.Event
    made: torch.cuda.Event
    ended: torch.cuda.Event

    def done(self) -> bool:
        try:
            return bool(self.ended.query())  # type: ignore[no-untyped-call]
        except RuntimeError:  # the device's own: `result` will raise it
            return True

    def wait(self) -> None:
        with suppress(RuntimeError):
            self.ended.synchronize()

    def result(self) -> Encoding:
        self.ended.synchronize()
        return Encoding(
            self.features,
            self.windows,
            self.began.elapsed_time(self.made) / 1000,
            self.made.elapsed_time(self.ended) / 1000,
        )


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _tensors(features: Features, windows: Sequence[Encoded]) -> Iterator[Tensor]:
    yield features.values_BFT
    for window in windows:
        yield window.states_TD
        yield window.positions_T
        if window.log_weights_T is not None:
            yield window.log_weights_T
