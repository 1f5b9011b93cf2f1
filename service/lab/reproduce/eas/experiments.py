"""Runs what is planned, and takes from the record what is there already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from service.audio.mel import log_mel
from service.families.whisper import Whisper
from service.lab.breakdown import DENSE, Job, Stopwatch, Timed
from service.lab.outcomes import ItemOutcome, outcome
from service.lab.packing import to_float
from service.lab.reproduce.eas.data import Gathered, Recordings, Role, Source, gather
from service.lab.reproduce.eas.plan import (
    ATTENTION,
    Cell,
    Cost,
    Size,
    check_cells,
    jobs,
    search_cells,
    setting,
    timing_share,
)
from service.lab.reproduce.eas.results import Outcomes, Results
from service.lab.reproduce.record import Record, outcomes_from_json, outcomes_to_json
from service.lab.runs import How, Service

TRIAL_TEXTS = 4  # by which it is said how long all will take
# What the search may choose at most, for estimates: one setting for each kind of recordings.
ANY_TWO = dict.fromkeys((True, False), setting(ATTENTION, 1, 0.0))

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Lab:
    """What experiments are run with. `made_by`: all but profile and recordings that a text
    depends on; `machine`: what times depend on besides."""

    service: Service
    model: Whisper
    record: Record
    made_by: Mapping[str, Any]
    machine: Mapping[str, Any]
    concurrency: int
    say: Say


def run(
    lab: Lab, source: Source, size: Size, *, limit: int | None, budget_s: float | None
) -> tuple[Results, Gathered]:
    """Every experiment. `limit`: recordings of a set at most; None: as many as fit into the
    budget, or all."""
    limit, per_text_s = _settle(lab, source, size, limit, budget_s)
    gathered = gather(source, limit)
    _announce(lab, size, gathered, per_text_s)
    texts = _texts(lab, gathered, search_cells(size, gathered), "search")
    timed = _times(lab, size, gathered)
    known = Results(size, gathered.sets, texts, timed, source.material.seed)
    checks = check_cells(size, gathered, known.all_chosen())
    texts = texts | _texts(lab, gathered, checks, "checks")
    return replace(known, texts=texts), gathered


def _settle(
    lab: Lab, source: Source, size: Size, limit: int | None, budget_s: float | None
) -> tuple[int | None, float]:
    """How many recordings of a set are taken, and how long a text takes, in seconds.

    Recorded, so that a run which is started again does not measure another speed and then want
    other recordings.
    """
    whole = gather(replace(source, levels=()), None)
    sets = {one.name: one.digest for one in whole.sets}
    key = {**_made_by(lab, "plan"), "sets": sets, "size": asdict(size), "budget_s": budget_s}
    known = lab.record.read(key)
    if known is None:
        seconds = _trial(lab, whole)
        cost = Cost(seconds, seconds * timing_share(size, lab.model.info.num_encoder_layers))
        most = None if budget_s is None else cost.limit(budget_s, _num_texts(source, size, whole))
        known = {"limit": most, "per_text_s": seconds}
        lab.record.write(key, known)
    return limit or known["limit"], known["per_text_s"]


def _trial(lab: Lab, gathered: Gathered) -> float:
    """Seconds of a dense text: the least of two runs, the first of which warms up what is slow
    once."""
    items = gathered.sets[0].items[:TRIAL_TEXTS]
    how = How(raw=True, concurrency=lab.concurrency)
    return min(lab.service.run(items, DENSE, how).seconds for _ in range(2)) / len(items)


def _num_texts(source: Source, size: Size, whole: Gathered) -> list[int]:
    """How many recordings each cell would have without a limit."""
    have = {one.name: len(one.items) for one in whole.sets}
    like = max(len(one.items) for one in whole.of(Role.HELD) or whole.sets)
    few = gather(source, 1)  # noise is mixed into what is asked for: not into all of it
    cells = [*search_cells(size, few), *check_cells(size, few, ANY_TWO)]
    return [have.get(cell.set_name, like) for cell in cells]


def _announce(lab: Lab, size: Size, gathered: Gathered, per_text_s: float) -> None:
    cells = [*search_cells(size, gathered), *check_cells(size, gathered, ANY_TWO)]
    sets = {one.name: one for one in gathered.sets}
    missing = [
        len(sets[cell.set_name].items)
        for cell in cells
        if lab.record.read(_text_key(lab, sets[cell.set_name], cell)) is None
    ]
    timing_s = 0.0
    if lab.record.read(_time_key(lab, size, gathered)) is None:
        timing_s = per_text_s * timing_share(size, lab.model.info.num_encoder_layers)
    minutes = Cost(per_text_s, timing_s).seconds(missing) / 60
    for one in gathered.sets:
        seconds = sum(item.seconds for item in one.items)
        lab.say(f"{one.name}: {len(one.items)} recordings, {seconds / 60:.1f} minutes of audio")
    lab.say(
        f"{sum(missing)} texts under {len({c.profile.name for c in cells})} settings, and times: "
        f"about {minutes:.0f} minutes"
    )


def _texts(lab: Lab, gathered: Gathered, cells: Sequence[Cell], what: str) -> dict[Cell, Outcomes]:
    """The outcomes of every cell; each is recorded as soon as it is there."""
    sets = {one.name: one for one in gathered.sets}
    found: dict[Cell, Outcomes] = {}
    missing: list[Cell] = []
    for cell in cells:
        known = lab.record.read(_text_key(lab, sets[cell.set_name], cell))
        if known is None:
            missing.append(cell)
        else:
            found[cell] = outcomes_from_json(known)
    total = sum(len(sets[cell.set_name].items) for cell in missing)
    with tqdm(total=total, desc=what, unit="text", disable=None) as bar:
        for cell in missing:
            one = sets[cell.set_name]
            how = How(raw=cell.raw, concurrency=lab.concurrency)
            answers = lab.service.run(one.items, cell.profile, how, bar.update).answers
            found[cell] = tuple(
                replace(outcome(item, answer), text="")
                for item, answer in zip(one.items, answers, strict=True)
            )
            lab.record.write(_text_key(lab, one, cell), outcomes_to_json(found[cell]))
    return {cell: found[cell] for cell in cells}  # in one order, whatever was there already


def _times(lab: Lab, size: Size, gathered: Gathered) -> dict[str, Timed]:
    """How long every job takes, by its name."""
    key, wanted = _time_key(lab, size, gathered), jobs(size)
    seconds = lab.record.read(key)
    if seconds is None:
        seconds = {name: one.seconds for name, one in _timed(lab, size, wanted, gathered).items()}
        lab.record.write(key, seconds)
    return {
        job.name: Timed(job.piece, job.profile.name, job.batch, tuple(seconds[job.name]))
        for job in wanted
    }


def _timed(lab: Lab, size: Size, wanted: Sequence[Job], gathered: Gathered) -> dict[str, Timed]:
    items = _timed_on(gathered).items
    windows = [to_float(items[n % len(items)].pcm) for n in range(max(size.batches))]
    mel_BFT = log_mel(windows, lab.model.info.num_mels)
    stopwatch = Stopwatch(lab.model, mel_BFT, size.num_tokens)
    stopwatch.times(wanted[:1], 1)
    with tqdm(total=len(wanted) * size.rounds, desc="times", unit="turn", disable=None) as bar:
        found = stopwatch.times(wanted, size.rounds, bar.update)
    return {job.name: one for job, one in zip(wanted, found, strict=True)}


def _timed_on(gathered: Gathered) -> Recordings:
    """Full windows where there are some."""
    return max(gathered.sets, key=lambda one: one.full)


def _made_by(lab: Lab, part: str) -> dict[str, Any]:
    return {**lab.made_by, "part": part}


def _text_key(lab: Lab, of: Recordings, cell: Cell) -> dict[str, Any]:
    does = {name: value for name, value in asdict(cell.profile).items() if name != "name"}
    return {
        **_made_by(lab, "texts"),
        "recordings": of.digest,
        "raw": cell.raw,
        "profile": does,
    }


def _time_key(lab: Lab, size: Size, gathered: Gathered) -> dict[str, Any]:
    return {
        **_made_by(lab, "times"),
        "machine": dict(lab.machine),
        "jobs": [job.name for job in jobs(size)],
        "rounds": size.rounds,
        "tokens": size.num_tokens,
        "recordings": _timed_on(gathered).digest,
    }


def summary(outcomes: Sequence[ItemOutcome]) -> dict[str, int]:
    """Counts over a cell's texts."""
    return {
        "words": sum(one.errors.words for one in outcomes),
        "substitutions": sum(one.errors.substitutions for one in outcomes),
        "deletions": sum(one.errors.deletions for one in outcomes),
        "insertions": sum(one.errors.insertions for one in outcomes),
        "looped": sum(one.looped for one in outcomes),
        "broke_off": sum(one.broke_off for one in outcomes),
        "skipped": sum(one.skipped for one in outcomes),
        "windows_again": sum(one.windows_again for one in outcomes),
    }
