"""What a run has shown: counts, worst times, and what was against the rules."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from loadtest.hostile.answers import Outcome
from loadtest.hostile.ordinary import Asked
from loadtest.hostile.process import Footprint

NUM_WORST = 5
NUM_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Limits:
    """Past which the run has failed.

    `hang_s`: to the end of what is owed; `slower_s`: an ordinary request over the slowest of those
    before; `memory_mb`, `descriptors`: more at the end than at the beginning; `peak_mb`: more at
    any time.
    """

    hang_s: float
    slower_s: float
    memory_mb: float
    peak_mb: float
    descriptors: int


@dataclass(frozen=True, slots=True)
class Run:
    """What was seen. The footprints are None where the service's processes were not looked at.

    `skipped`: trials that were left out; `peak_at`: a reading of `time.monotonic()`.
    """

    seed: int
    outcomes: Sequence[Outcome]
    skipped: int
    quiet: Sequence[Asked]
    meanwhile: Sequence[Asked]
    before: Footprint | None
    after: Footprint | None
    peak_mb: float
    peak_at: float
    gone: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """`faults`: a sentence each, none if all is well."""

    faults: tuple[str, ...]
    figures: dict[str, Any]


def judge(run: Run, limits: Limits) -> Verdict:
    """What was against the rules, and the figures."""
    faults = [
        f"trial {one.number} ({one.kind}, {one.what}): {one.fault}"
        for one in run.outcomes
        if one.fault
    ]
    faults += _ordinary_faults(run, limits)
    faults += _process_faults(run, limits)
    return Verdict(tuple(faults), _figures(run))


def _ordinary_faults(run: Run, limits: Limits) -> list[str]:
    usual_s = max(asked.seconds for asked in run.quiet)
    text = run.quiet[0].text
    faults = []
    for asked in run.meanwhile:
        beside = _beside(run, asked.began, asked.began + asked.seconds)
        if asked.text is None:
            faults.append(f"an ordinary request failed: {asked.problem}{beside}")
        elif asked.text != text:
            faults.append(f"an ordinary request got another text{beside}")
        elif asked.seconds > usual_s + limits.slower_s:
            faults.append(
                f"an ordinary request took {asked.seconds:.2f} s, not {usual_s:.2f} s{beside}"
            )
    return faults


def _beside(run: Run, began: float, ended: float) -> str:
    """The trials that went on at the same time."""
    beside = [one.number for one in run.outcomes if one.began <= ended and one.ended >= began]
    return f", beside trials {', '.join(map(str, beside[:NUM_SHOWN]))}" if beside else ""


def _process_faults(run: Run, limits: Limits) -> list[str]:
    faults = ["the service's process has ended"] if run.gone else []
    if run.before is None or run.after is None:
        return faults
    grown_mb = run.after.memory_mb - run.before.memory_mb
    peak_mb = run.peak_mb - run.before.memory_mb
    more = run.after.descriptors - run.before.descriptors
    if grown_mb > limits.memory_mb:
        faults.append(f"memory grew by {grown_mb:.0f} MB, more than {limits.memory_mb:g}")
    if peak_mb > limits.peak_mb:
        faults.append(
            f"memory was {peak_mb:.0f} MB higher for a time, more than {limits.peak_mb:g}"
            f"{_beside(run, run.peak_at, run.peak_at)}"
        )
    if more > limits.descriptors:
        faults.append(f"{more} descriptors more than before are open")
    return faults


def _figures(run: Run) -> dict[str, Any]:
    kinds = sorted({one.kind for one in run.outcomes})
    quiet = [asked.seconds for asked in run.quiet]
    meanwhile = [asked.seconds for asked in run.meanwhile]
    return {
        "seed": run.seed,
        "trials": len(run.outcomes),
        "skipped": run.skipped,
        "answers": {kind: _statuses(run, kind) for kind in kinds},
        "slowest": {kind: _slowest(run, kind) for kind in kinds},
        "ordinary_seconds": {
            "requests": len(meanwhile),
            "before_median": round(median(quiet), 3),
            "before_worst": round(max(quiet), 3),
            "median": round(median(meanwhile), 3) if meanwhile else None,
            "worst": round(max(meanwhile), 3) if meanwhile else None,
        },
        "process": {
            "before": asdict(run.before) if run.before else None,
            "after": asdict(run.after) if run.after else None,
            "peak_mb": round(run.peak_mb, 1),
        },
    }


def _statuses(run: Run, kind: str) -> dict[str, int]:
    counts = Counter(one.status for one in run.outcomes if one.kind == kind)
    return dict(sorted(counts.items()))


def _slowest(run: Run, kind: str) -> list[dict[str, Any]]:
    ofkind = [one for one in run.outcomes if one.kind == kind]
    worst = sorted(ofkind, key=lambda one: -one.seconds)[:NUM_WORST]
    return [
        {"number": one.number, "seconds": round(one.seconds, 3), "what": one.what} for one in worst
    ]


def report(verdict: Verdict) -> str:
    """The verdict as lines for people."""
    figures = verdict.figures
    lines = [f"{figures['trials']} trials of seed {figures['seed']}, {figures['skipped']} skipped"]
    for kind, counts in figures["answers"].items():
        said = ", ".join(f"{number} of {status}" for status, number in counts.items())
        slow = figures["slowest"][kind][0]
        lines.append(f"{kind}: {said}; slowest {slow['seconds']:.2f} s ({slow['number']})")
    ordinary, process = figures["ordinary_seconds"], figures["process"]
    lines.append(
        f"ordinary requests: before {ordinary['before_median']} s (worst "
        f"{ordinary['before_worst']}), meanwhile {ordinary['median']} s (worst "
        f"{ordinary['worst']}) of {ordinary['requests']}"
    )
    if process["before"] and process["after"]:
        before, after = process["before"], process["after"]
        lines.append(
            f"memory {before['memory_mb']:.0f} -> {after['memory_mb']:.0f} MB (peak "
            f"{process['peak_mb']:.0f}), descriptors {before['descriptors']} -> "
            f"{after['descriptors']}, processes {before['processes']} -> {after['processes']}"
        )
    lines += [f"FAULT {fault}" for fault in verdict.faults[:NUM_SHOWN]]
    if (more := len(verdict.faults) - NUM_SHOWN) > 0:
        lines.append(f"and {more} more faults")
    lines.append(f"{len(verdict.faults)} faults" if verdict.faults else "nothing against the rules")
    return "\n".join(lines)


def write_json(path: Path, run: Run, verdict: Verdict) -> None:
    """Figures, faults and every trial."""
    whole = verdict.figures | {
        "faults": list(verdict.faults),
        "outcomes": [
            {name: getattr(one, name) for name in ("number", "kind", "what", "status", "fault")}
            | {"seconds": round(one.seconds, 3)}
            for one in run.outcomes
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
