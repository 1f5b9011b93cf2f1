"""What is asked of the figures: losses in points, times against dense, and the setting chosen."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from service.lab.breakdown import DENSE, WHOLE, Job, Timed
from service.lab.outcomes import ItemOutcome
from service.lab.reproduce.eas.data import Recordings, Role
from service.lab.reproduce.eas.plan import (
    ATTENTION,
    BOUND_POINTS,
    SPARSITY,
    Cell,
    Size,
    decodes_like,
    setting,
)
from service.lab.statistics import Estimate, difference, error_rate
from service.profiles import Profile

Outcomes = tuple[ItemOutcome, ...]


@dataclass(frozen=True, slots=True)
class Results:
    """All figures of a run. `timed`: by the names of their jobs. What is worked out is kept: the
    same difference is in a claim, a table and a plot, and each is 10,000 resamples."""

    size: Size
    sets: tuple[Recordings, ...]
    texts: Mapping[Cell, Outcomes]
    timed: Mapping[str, Timed]
    seed: int = 0
    _known: dict[tuple[object, ...], Estimate] = field(default_factory=dict, compare=False)

    def of(self, role: Role, full: bool | None = None) -> list[Recordings]:
        return [s for s in self.sets if s.role == role and full in (None, s.full)]

    def outcomes(self, of: Recordings, profile: Profile, *, raw: bool = True) -> Outcomes:
        return self.texts[Cell(of.name, raw, profile)]

    def has(self, of: Recordings, profile: Profile, *, raw: bool = True) -> bool:
        return Cell(of.name, raw, profile) in self.texts

    def wer(self, of: Recordings, profile: Profile, *, raw: bool = True) -> Estimate:
        """Word error rate in per cent."""
        outcomes = self.outcomes(of, profile, raw=raw)
        key = ("wer", of.name, profile, raw)
        return self._once(key, lambda: error_rate(_totals(outcomes), _words(outcomes), self.seed))

    def loss(
        self, of: Recordings, profile: Profile, *, raw: bool = True, against: Profile = DENSE
    ) -> Estimate:
        """Points of word error rate above another profile's, paired."""
        ours = self.outcomes(of, profile, raw=raw)
        theirs = self.outcomes(of, against, raw=raw)
        key = ("loss", of.name, profile, raw, against)
        return self._once(
            key, lambda: difference(_totals(ours), _totals(theirs), _words(ours), self.seed)
        )

    def too_much(self, of: Recordings, profile: Profile, *, raw: bool = True) -> Estimate:
        """Words that nobody said, per hundred of reference, above dense's."""
        ours, theirs = (self.outcomes(of, one, raw=raw) for one in (profile, DENSE))
        extra, before = ([o.errors.insertions for o in some] for some in (ours, theirs))
        key = ("too much", of.name, profile, raw)
        return self._once(key, lambda: difference(extra, before, _words(ours), self.seed))

    def looping(self, of: Recordings, profile: Profile, *, raw: bool = True) -> Estimate:
        """Texts that repeat themselves, in a hundred, above dense's."""
        ours, theirs = (
            [int(o.looped) for o in self.outcomes(of, one, raw=raw)] for one in (profile, DENSE)
        )
        key = ("looping", of.name, profile, raw)
        return self._once(key, lambda: difference(ours, theirs, [1] * len(ours), self.seed))

    def _once(self, key: tuple[object, ...], work: Callable[[], Estimate]) -> Estimate:
        """In per cent."""
        if key not in self._known:
            found = work()
            self._known[key] = Estimate(100 * found.value, 100 * found.low, 100 * found.high)
        return self._known[key]

    def seconds(self, profile: Profile, batch: int = 1) -> list[float]:
        """Of a window from end to end, a round each: encoding it and decoding so many tokens."""
        pieces = [self._timed(profile, batch, piece) for piece in WHOLE]
        return [sum(times) for times in zip(*(one.seconds for one in pieces), strict=True)]

    def speedup(self, profile: Profile, batch: int = 1) -> Estimate:
        """How many times as fast as dense: the median, the least and the most of the rounds."""
        dense, ours = self.seconds(DENSE, batch), self.seconds(profile, batch)
        ratios = [theirs / mine for theirs, mine in zip(dense, ours, strict=True)]
        return Estimate(statistics.median(ratios), min(ratios), max(ratios))

    def _timed(self, profile: Profile, batch: int, piece: str) -> Timed:
        job = Job(piece, profile, batch)
        if job.name not in self.timed:
            job = Job(piece, decodes_like(self.size, profile), batch)
        return self.timed[job.name]

    def parts(self, profile: Profile, batch: int) -> dict[str, float]:
        """Milliseconds of a window by part, the least of the rounds: the encoder up to the drop as
        dense has it, what scoring and choosing add to that, the encoder after it, the decoder.

        Of dense and of the setting whose pieces were timed, at the batches at which they were.
        """
        cut = self._published

        def least_ms(piece: str, of: Profile) -> float:
            return 1000 * self._timed(of, batch, piece).least

        stem, before = least_ms("stem", cut), least_ms("before", cut)
        dropped = before if profile.is_dense else max(before, least_ms("drop", profile))
        return {
            "stem": stem,
            "encoder before": before - stem,
            "scoring": dropped - before,
            "encoder after": max(0.0, least_ms("encode", profile) - dropped),
            "cross keys": least_ms("cross", profile),
            "decoder steps": least_ms("steps", profile),
        }

    @property
    def _published(self) -> Profile:
        return setting(ATTENTION, self.size.layer, SPARSITY)

    def solutions(self, of: Recordings) -> list[Profile]:
        """Settings of the search that lose at most a point, the fastest first."""
        found = [p for p in self.size.grid if self.loss(of, p).value <= BOUND_POINTS]
        return sorted(found, key=lambda profile: -self.speedup(profile).value)

    def chosen(self, of: Recordings) -> Profile | None:
        """As the paper chooses: the fastest of them."""
        return next(iter(self.solutions(of)), None)

    def all_chosen(self) -> dict[bool, Profile]:
        """By whether on full windows; none where no setting is within a point."""
        found = {of.full: self.chosen(of) for of in self.of(Role.SEARCH)}
        return {full: profile for full, profile in found.items() if profile is not None}


def _totals(outcomes: Sequence[ItemOutcome]) -> list[int]:
    return [one.errors.total for one in outcomes]


def _words(outcomes: Sequence[ItemOutcome]) -> list[int]:
    return [one.errors.words for one in outcomes]
