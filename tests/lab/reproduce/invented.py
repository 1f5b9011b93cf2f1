"""Results that nobody measured: errors and times by a rule, for every setting that a run plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from service.lab.breakdown import Job, Timed
from service.lab.outcomes import ItemOutcome
from service.lab.packing import Item
from service.lab.reproduce.eas.data import Gathered, Recordings, Role
from service.lab.reproduce.eas.plan import Size, check_cells, jobs, search_cells
from service.lab.reproduce.eas.results import Results
from service.profiles import Profile
from service.text.wer import Errors

NUM_LAYERS = 6
SIZE = Size((1, 2, 4), (0.2, 0.4, 0.5, 0.6, 0.8), (0.5, 0.9), (1, 8), 3, 10)
WORDS = 100

# Words wrong, missing or too much more than dense's in a recording, by its number: points.
Loss = Callable[[Recordings, Profile, bool, int], float]
Seconds = Callable[[Job, int], float]
Looped = Callable[[Recordings, Profile], int]


def nothing(of: Recordings, profile: Profile, raw: bool, number: int) -> float:
    return 0


def by_frames(job: Job, number: int) -> float:
    """Ten seconds of encoder, by the frames in its layers; decoding as long as reading is short."""
    early = job.profile.layer / NUM_LAYERS
    kept = 1 - job.profile.sparsity
    return {
        "stem": 0.1,
        "before": 10 * early,
        "drop": 10 * early + 0.2,
        "encode": 10 * (early + (1 - early) * kept) if job.profile.sparsity else 10,
        "cross": kept,
        "steps": 2 + kept,
    }[job.piece]


def recordings(name: str, role: Role, *, full: bool, num_items: int) -> Recordings:
    items = [Item(str(n), np.zeros(16, np.int16), "", "en") for n in range(num_items)]
    return Recordings(name, role, full, tuple(items))


def sets(num_items: int) -> Gathered:
    made = (
        ("full", Role.SEARCH, True),
        ("single", Role.SEARCH, False),
        ("full, held", Role.HELD, True),
        ("single, held", Role.HELD, False),
        ("noise", Role.NOISE, True),
        ("german", Role.OTHER, True),
    )
    all_of_them = (
        recordings(name, role, full=full, num_items=num_items) for name, role, full in made
    )
    return Gathered(tuple(all_of_them), ())


def results(
    loss: Loss = nothing,
    seconds: Seconds = by_frames,
    looped: Looped = lambda of, profile: 0,
    *,
    num_items: int = 20,
    size: Size = SIZE,
) -> Results:
    """As a run makes them: the search first, and then what it chose. Dense has 5 errors a hundred
    words; what is lost are words too much."""
    gathered = sets(num_items)
    timed = {
        job.name: Timed(
            job.piece,
            job.profile.name,
            job.batch,
            tuple(seconds(job, number) for number in range(size.rounds)),
        )
        for job in jobs(size)
    }
    by_name = {of.name: of for of in gathered.sets}

    def outcomes(name: str, profile: Profile, raw: bool) -> tuple[ItemOutcome, ...]:
        of = by_name[name]
        return tuple(
            _outcome(
                0 if profile.is_dense else loss(of, profile, raw, number),
                number < looped(of, profile),
            )
            for number in range(num_items)
        )

    texts = {c: outcomes(c.set_name, c.profile, c.raw) for c in search_cells(size, gathered)}
    found = Results(size, gathered.sets, texts, timed)
    cells = check_cells(size, gathered, found.all_chosen())
    checked = {cell: outcomes(cell.set_name, cell.profile, cell.raw) for cell in cells}
    return replace(found, texts={**texts, **checked})


def _outcome(more: float, looped: bool) -> ItemOutcome:
    errors = Errors(5, 0, round(more), WORDS)
    return ItemOutcome(errors, WORDS, looped, False, False, False, {}, 0, "")
