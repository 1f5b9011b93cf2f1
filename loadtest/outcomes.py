"""What came of the requests of a step: single visits, and their summary. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loadtest.audio import Recording

OK, TOO_MANY, NOT_READY = 200, 429, 503


@dataclass(frozen=True, slots=True)
class Visit:
    """One request that was sent, and how it ended. Seconds; `due_s` from the step's start.

    `latency_s` runs from the moment at which it was due, so that a late generator does not make a
    server look quick. `status` is 0 where there was no answer, and `error` then says why.
    `returned`: sent again after a refusal, when the server's `Retry-After` was over.
    """

    recording: Recording
    due_s: float
    late_s: float
    latency_s: float
    status: int
    text: str = ""
    error: str = ""
    returned: bool = False
    retry_after_s: float | None = None

    @property
    def answered(self) -> bool:
        return self.status == OK

    @property
    def refused(self) -> bool:
        return self.status in (TOO_MANY, NOT_READY)


@dataclass(frozen=True, slots=True)
class Returns:
    """Clients that were refused and obeyed `Retry-After`: came back, and then."""

    asked: int  # refusals that named a time
    sent: int  # came back while the load was still on
    answered: int
    refused_again: int
    failed: int  # accepted or not: no answer in time
    mean_wait_s: float | None  # as the server told them

    @property
    def accepted_share(self) -> float | None:
        """Those that were not refused again, of those that came back."""
        return 1 - self.refused_again / self.sent if self.sent else None


@dataclass(frozen=True, slots=True)
class Summary:
    """A step from outside. Shares are of the requests that were due, returns left out.

    Goodput counts what was answered before the step's schedule ended, over its seconds:
    requests, and seconds of audio (which is the real-time factor's inverse under load, RTFx).
    Percentiles are over the answered requests, None where there were none.
    """

    num_requests: int
    answered: int
    statuses: dict[str, int]
    error_share: float
    refused_share: float
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    longest_s: float | None
    goodput_rps: float
    rtfx: float
    offered_rtfx: float
    late_p99_s: float
    returns: Returns
    cut_off: int = field(default=0)  # still open when the run was interrupted


def summarise(visits: Sequence[Visit], seconds: float, cut_off: int = 0) -> Summary:
    """The summary of a step that lasted `seconds`."""
    first = [v for v in visits if not v.returned]
    answered = [v for v in visits if v.answered]
    in_time = [v for v in answered if v.due_s + v.latency_s <= seconds]
    latencies = [v.latency_s for v in first if v.answered]
    number = len(first)
    return Summary(
        num_requests=number,
        answered=len(latencies),
        statuses=_statuses(first),
        error_share=1 - len(latencies) / number if number else 0.0,
        refused_share=sum(v.status == TOO_MANY for v in first) / number if number else 0.0,
        p50_s=quantile(latencies, 0.50),
        p95_s=quantile(latencies, 0.95),
        p99_s=quantile(latencies, 0.99),
        longest_s=max(latencies, default=None),
        goodput_rps=len(in_time) / seconds,
        rtfx=sum(v.recording.seconds for v in in_time) / seconds,
        offered_rtfx=sum(v.recording.seconds for v in first) / seconds,
        late_p99_s=quantile([v.late_s for v in visits], 0.99) or 0.0,
        returns=_returns(visits),
        cut_off=cut_off,
    )


def _statuses(visits: Sequence[Visit]) -> dict[str, int]:
    return dict(Counter(v.error or str(v.status) for v in visits).most_common())


def _returns(visits: Sequence[Visit]) -> Returns:
    told = [v.retry_after_s for v in visits if v.refused and v.retry_after_s is not None]
    back = [v for v in visits if v.returned]
    answered, refused = sum(v.answered for v in back), sum(v.refused for v in back)
    return Returns(
        asked=len(told),
        sent=len(back),
        answered=answered,
        refused_again=refused,
        failed=len(back) - answered - refused,
        mean_wait_s=sum(told) / len(told) if told else None,
    )


def quantile(values: Sequence[float], q: float) -> float | None:
    """The smallest value that at least a share `q` of the values do not pass; None of none."""
    if not values:
        return None
    return float(np.sort(np.asarray(values))[max(math.ceil(q * len(values)) - 1, 0)])


def plain(value: Any) -> Any:
    """A value for JSON: numbers to six significant places."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
