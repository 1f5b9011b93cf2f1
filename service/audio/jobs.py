"""What the pool of workers and a worker say to each other, line by line.

Apart from `worker`, so that the service's own process never loads what decodes.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from service.errors import InvalidAudio, InvalidRequest, TooLarge
from service.types import Notice

BEGUN, ALIVE = b"+", b"."
ERRORS = {error.__name__: error for error in (InvalidAudio, InvalidRequest, TooLarge)}


@dataclass(frozen=True, slots=True)
class Job:
    """A recording to decode, and how. `free_cpu_s`: processor time that it may take before its
    first sample, or at any place more than its samples are worth."""

    max_seconds: float
    split_channels: bool
    free_cpu_s: float

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a job: so many samples in each channel, or an `error` of those in `ERRORS`.

    `spent`: the worker has more memory than it began with. `swollen`: the recording asked for
    more than it may. `trace`: where an error came from that nobody raised on purpose.
    """

    num_channels: int = 0
    num_samples: int = 0
    losses: tuple[Notice, ...] = ()
    error: str = ""
    message: str = ""
    param: str | None = None
    spent: bool = False
    swollen: bool = False
    trace: str = ""

    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Reply:
        """Raises ValueError, KeyError or TypeError for what is none."""
        fields: dict[str, Any] = json.loads(line)
        losses = tuple(Notice(**loss) for loss in fields.pop("losses"))
        return cls(**fields, losses=losses)
