"""What in a run's results is past the limits that were given. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from loadtest.accuracy import WordErrors
from loadtest.results import OVERLOAD, SEARCH, StepResult


@dataclass(frozen=True, slots=True)
class Limits:
    """Most or least of each; None where anything goes."""

    p95_s: float | None
    max_errors: float
    max_wer: float | None
    min_rate: float | None
    min_rtfx: float | None


def problems(
    steps: Sequence[StepResult],
    maxima: Mapping[str, float | None],
    words: Mapping[str, WordErrors],
    limits: Limits,
) -> list[str]:
    """A sentence for each limit that was passed.

    A search has to go past the limits, and so does an overload: of these, only the maximum
    itself is judged.
    """
    found = [p for r in steps if _judged(r, maxima) for p in _of_step(r, limits)]
    for profile, rate in maxima.items():
        if rate is None:
            found.append(f"{profile}: no rate held")
        elif limits.min_rate is not None and rate < limits.min_rate:
            found.append(f"{profile}: maximum {rate:.2f} requests/s, at least {limits.min_rate:g}")
    for profile, score in words.items():
        if limits.max_wer is not None and score.wer is not None and score.wer > limits.max_wer:
            found.append(f"{profile}: WER {score.wer:.1%}, at most {limits.max_wer:.1%}")
    return found


def _judged(result: StepResult, maxima: Mapping[str, float | None]) -> bool:
    if result.step.kind == SEARCH:
        return result.held and result.step.rate == maxima.get(result.step.profile)
    return result.step.kind != OVERLOAD and not result.interrupted


def _of_step(result: StepResult, limits: Limits) -> Iterator[str]:
    where = f"{result.step.profile} at {result.step.rate:.2f}/s"
    summary = result.summary
    if limits.p95_s is not None and (summary.p95_s is None or summary.p95_s > limits.p95_s):
        p95 = "no answer" if summary.p95_s is None else f"p95 {summary.p95_s:.2f} s"
        yield f"{where}: {p95}, at most {limits.p95_s:g} s"
    if summary.error_share > limits.max_errors:
        yield f"{where}: errors {summary.error_share:.1%}, at most {limits.max_errors:.1%}"
    if limits.min_rtfx is not None and summary.rtfx < limits.min_rtfx:
        yield f"{where}: RTFx {summary.rtfx:.1f}, at least {limits.min_rtfx:g}"
