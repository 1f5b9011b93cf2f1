"""The results of `winnow evaluate` as a table and as JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from service.lab.evaluate import DENSE, DomainResult
from service.lab.outcomes import Figures, ItemOutcome
from service.lab.statistics import Estimate

COLUMNS = (
    "domain",
    "files",
    "profile",
    "WER",
    "against dense (95%)",
    "sub / del / ins",
    "again",
    "looped",
    "broke off",
    "skipped",
    "invented",
)


def table(results: Sequence[DomainResult]) -> str:
    """Markdown: a line for each domain and profile; speed and times where they were measured."""
    every = [figures for result in results for figures in result.figures]
    columns = list(COLUMNS)
    if timed := any(figures.speeds for figures in every):
        columns += ["x real time (min to max)", "against dense"]
    if any(figures.times for figures in every):
        columns += ["word starts / ends off dense, median s"]
    lines = [line(columns), line(["---"] * len(columns))]
    for result in results:
        dense = next(figures for figures in result.figures if figures.profile == DENSE)
        for figures in result.figures:
            cells = [result.domain, str(len(result.items)), *_words(figures)]
            if timed:
                cells += _speed(figures, dense)
            if len(cells) < len(columns):
                cells.append(_times(figures.times))
            lines.append(line(cells))
    return "\n".join(lines)


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _words(figures: Figures) -> Iterator[str]:
    errors, wer, more = figures.errors, figures.wer, figures.difference
    yield figures.profile
    yield f"{100 * wer.value:.1f}%" if errors.words else "-"
    if more is None or not errors.words:
        yield "-"
    else:
        low, high = 100 * more.low, 100 * more.high
        yield f"{100 * more.value:+.1f} ({low:+.1f} to {high:+.1f})"
    yield f"{errors.substitutions} / {errors.deletions} / {errors.insertions}"
    yield f"{figures.windows_again} of {figures.num_windows}"
    yield str(figures.looped)
    yield str(figures.broke_off)
    yield str(figures.skipped)
    yield str(figures.invented)


def _speed(figures: Figures, dense: Figures) -> tuple[str, str]:
    least, middle, most = _spread(figures.speeds)
    ratio = statistics.median(_ratios(figures, dense))
    return f"{middle:.1f} ({least:.1f} to {most:.1f})", f"{ratio:.2f}"


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


def _ratios(figures: Figures, dense: Figures) -> list[float]:
    """Of each round: what is slow for a while is slow for both."""
    return [ours / theirs for ours, theirs in zip(figures.speeds, dense.speeds, strict=True)]


def _times(times: Mapping[str, float]) -> str:
    if "start_median_s" not in times:
        return "-"
    return f"{times['start_median_s']:.2f} / {times['end_median_s']:.2f}"


def to_json(
    results: Sequence[DomainResult], about: Mapping[str, Any], *, texts: bool = False
) -> dict[str, Any]:
    """Everything, with each recording's errors, so that intervals can be worked out again."""
    return {**about, "domains": [_domain(result, texts) for result in results]}


def _domain(result: DomainResult, texts: bool) -> dict[str, Any]:
    dense = next(figures for figures in result.figures if figures.profile == DENSE)
    return {
        "domain": result.domain,
        "seconds": round(result.seconds, 3),
        "items": [
            {
                "name": item.name,
                "seconds": round(item.seconds, 3),
                "language": item.language,
                "speaker": item.speaker,
                "words": outcome.errors.words,
                **({"text": item.text} if texts else {}),
            }
            for item, outcome in zip(result.items, dense.items, strict=True)
        ],
        "profiles": {
            figures.profile: _figures(figures, dense, texts) for figures in result.figures
        },
    }


def _figures(figures: Figures, dense: Figures, texts: bool) -> dict[str, Any]:
    errors = figures.errors
    found: dict[str, Any] = {
        "wer": estimate_to_json(figures.wer),
        "difference": figures.difference and estimate_to_json(figures.difference),
        "words": errors.words,
        "substitutions": errors.substitutions,
        "deletions": errors.deletions,
        "insertions": errors.insertions,
        "windows": figures.num_windows,
        "windows_again": figures.windows_again,
        "attempts_again": dict(figures.again),
        "looped": figures.looped,
        "broke_off": figures.broke_off,
        "skipped": figures.skipped,
        "invented": figures.invented,
        "items": [_item(item, texts) for item in figures.items],
    }
    if figures.speeds:
        least, middle, most = _spread(figures.speeds)
        found["speed"] = {
            "unit": "seconds of audio per second",
            "min": round(least, 3),
            "median": round(middle, 3),
            "max": round(most, 3),
            "rounds": [round(speed, 3) for speed in figures.speeds],
            "against_dense": [round(ratio, 4) for ratio in _ratios(figures, dense)],
        }
    if figures.times:
        found["times_against_dense"] = dict(figures.times)
    return found


def estimate_to_json(estimate: Estimate) -> dict[str, float | None]:
    """JSON has no NaN: None where there is nothing to be wrong about."""
    return {
        name: None if math.isnan(value) else round(value, 6)
        for name, value in asdict(estimate).items()
    }


def _item(item: ItemOutcome, texts: bool) -> dict[str, Any]:
    errors = item.errors
    found: dict[str, Any] = {
        "errors": [errors.substitutions, errors.deletions, errors.insertions],
        "said": item.said,
    }
    flags = {
        "looped": item.looped,
        "broke_off": item.broke_off,
        "skipped": item.skipped,
        "invented": item.invented,
    }
    found |= {name: True for name, is_so in flags.items() if is_so}
    if item.again:
        found |= {"again": dict(item.again), "windows_again": item.windows_again}
    return {**found, "text": item.text} if texts else found
