"""The walk from all candidates to the chosen ones, over answers that are made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from service.errors import ConfigError
from service.lab.outcomes import ItemOutcome
from service.lab.search.choose import DENSE
from service.lab.search.halving import Plan
from service.lab.search.search import Found, Stage, search, whole
from service.lab.search.space import Space
from service.lab.search.trials import Place, Trial
from service.profiles import Profile
from service.text.wer import Errors
from tests.lab.search.standings import places

WORDS = 100  # of each recording


@dataclass
class MadeUp:
    """Candidate n makes n errors more than dense in every recording, and has the less to compute.

    `asked`: who was tried on what.
    """

    extra: dict[str, int]
    words: int = WORDS
    asked: dict[str, set[str]] = field(default_factory=dict)
    timed: list[list[str]] = field(default_factory=list)

    def num_missing(self, profile: Profile, some: Sequence[Place]) -> int:
        return len({place.key for place in some} - self.asked.get(profile.name, set()))

    def trials(self, profile: Profile, some: Sequence[Place], stage: str) -> list[Trial]:
        self.asked.setdefault(profile.name, set()).update(place.key for place in some)
        return [self._trial(profile) for _ in some]

    def _trial(self, profile: Profile) -> Trial:
        errors = Errors(5 + self.extra.get(profile.name, 0), 0, 0, self.words)
        one = ItemOutcome(errors, self.words, False, False, False, False, Counter(), 0, "")
        return Trial(one, 1, 1500, 1500, 60)

    def operations(self, profile: Profile, trials: Sequence[Trial]) -> float:
        return len(trials) * (100.0 - 10 * self.extra.get(profile.name, 0))

    def rounds(
        self, profiles: Sequence[Profile], some: Sequence[Place], num_rounds: int
    ) -> list[dict[str, dict[str, float]]]:
        self.timed.append([profile.name for profile in profiles])
        seconds = {p.name: self.operations(p, [self._trial(p)]) for p in profiles}
        return [{place.domain: seconds for place in some}] * num_rounds


@dataclass
class Seen:
    lefts: list[int] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)

    def begins(self, what: str, num_left: int) -> None:
        self.lefts.append(num_left)

    def ended(self, stage: Stage) -> None:
        self.stages.append(stage)


EXTRA = {f"c{n}": n for n in (1, 2, 3, 4, 5, 6)}
SPACE = Space(tuple(Profile(name, sparsity=0.5) for name in EXTRA))
TRAIN = places("train", 40) + places("train", 25, "told")
TEST = places("test", 30) + places("test", 10, "told")
PLAN = Plan(first=10, survivors=2, budgets=(0.5, 1.0, 3.0))


def found(bench: MadeUp, plan: Plan = PLAN, watcher: Seen | None = None) -> Found:
    return search(SPACE, TRAIN, TEST, plan, bench, watcher or Seen())


def test_the_better_are_tried_on_more_and_the_chosen_on_others() -> None:
    bench, seen = MadeUp(EXTRA), Seen()
    got = found(bench, watcher=seen)
    # None of them is beaten: c4 to c6 are surely beyond three points.
    assert [(s.name, s.num_items, s.on) for s in got.stages] == [
        ("first 10 recordings", 20, ("c1", "c2", "c3")),
        ("first 20 recordings", 40, ("c1", "c2")),
        ("all recordings", 65, ("c1", "c2")),
    ]
    assert list(got.stages) == seen.stages
    assert {name: len(asked) for name, asked in bench.asked.items()} == {
        **{"dense": 105, "c1": 105, "c2": 105},
        **{"c3": 40, "c4": 20, "c5": 20, "c6": 20},
    }
    assert bench.timed == [["dense", "c1", "c2"]]
    assert [choice.chosen for choice in got.choices] == [None, "c1", "c2"]
    assert seen.lefts[-1] == 120


def test_what_is_left_to_do_falls_to_what_is_done() -> None:
    seen = Seen()
    found(MadeUp(EXTRA), watcher=seen)
    assert seen.lefts == sorted(seen.lefts, reverse=True)


def test_the_report_is_of_the_other_split_by_domain() -> None:
    got = found(MadeUp(EXTRA))
    assert set(got.tested) == {"c1", "c2"}
    assert got.tested["c1"].difference.value == pytest.approx(0.01)
    assert [result.domain for result in got.reported] == ["read", "told"]
    assert [len(result.items) for result in got.reported] == [30, 10]
    assert all(item.name.startswith("test told") for item in got.reported[1].items)
    dense, c1, c2 = got.reported[0].figures
    assert [f.profile for f in (dense, c1, c2)] == [DENSE, "c1", "c2"]
    assert (dense.errors.total, c1.errors.total) == (150, 180)
    assert dense.num_windows == 30
    assert got.words == {"read": 4000, "told": 2500}
    assert got.profile("c2") == Profile("c2", sparsity=0.5)


def test_where_all_are_beyond_the_budgets_nobody_is_timed_nor_tested() -> None:
    bench = MadeUp({name: 40 for name in EXTRA})
    got = found(bench)
    assert got.stages[0].on == ()
    assert len(got.stages) == 1
    assert [choice.chosen for choice in got.choices] == [None] * 3
    assert all("too far from dense" in choice.why for choice in got.choices)
    assert bench.timed == []
    assert got.tested == {}
    assert not any(key.startswith("test") for asked in bench.asked.values() for key in asked)


def test_recordings_in_which_nothing_is_said() -> None:
    with pytest.raises(ConfigError, match="nothing is said"):
        found(MadeUp(EXTRA, words=0))


def test_seconds_over_all_domains_and_over_one() -> None:
    seconds = {"read": {"dense": 3.0, "c1": 2.0}, "told": {"dense": 1.0, "c1": 1.0}}
    assert whole(seconds) == {"dense": 4.0, "c1": 3.0}
    assert whole(seconds, "told") == seconds["told"]
