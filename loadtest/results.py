"""A step of a run, and all that was measured in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from loadtest.accuracy import WordErrors
from loadtest.outcomes import Summary, plain
from loadtest.server_side import ServerSide

RATE, SEARCH, MAXIMUM, SOAK, OVERLOAD = "rate", "search", "maximum", "soak", "overload"


@dataclass(frozen=True, slots=True)
class Step:
    """One profile at one rate (requests a second) for some seconds."""

    kind: str
    profile: str
    rate: float
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Generator:
    """Whether the requests went out as planned. `cpu_cores`: of one, as it is one process."""

    late_p99_s: float
    cpu_cores: float
    limited: bool


@dataclass(frozen=True, slots=True)
class StepResult:
    """`held`: the step's p95 and errors stayed within the limits, and the generator kept up."""

    step: Step
    summary: Summary
    words: WordErrors
    generator: Generator
    server: ServerSide | None
    locust: dict[str, Any]
    held: bool
    interrupted: bool

    def to_json(self) -> dict[str, Any]:
        """As the report has it."""
        content = asdict(self)
        content["words"]["wer"] = self.words.wer
        content["summary"]["returns"]["accepted_share"] = self.summary.returns.accepted_share
        rounded: dict[str, Any] = plain(content)
        return rounded
