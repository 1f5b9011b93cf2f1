"""The search: rung by rung to those worth a full pass, a choice for each budget, and a report of
the chosen on recordings that nothing was chosen on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.errors import ConfigError
from service.lab.evaluate import DomainResult
from service.lab.outcomes import compared
from service.lab.search.bench import Bench, Seconds
from service.lab.search.choose import DENSE, Choice, choose
from service.lab.search.halving import Plan, Rung, Standing, better, rungs
from service.lab.search.space import Space
from service.lab.search.trials import Place, Trial
from service.lab.statistics import difference
from service.profiles import Profile

REFERENCE = Profile(DENSE)
TIMED = 16  # recordings of each domain at most that are timed


class Watcher(Protocol):
    """Who is told what is done."""

    def begins(self, what: str, num_left: int) -> None:
        """`num_left`: answers that have to be waited for until the end, as far as is known."""

    def ended(self, stage: Stage) -> None: ...


@dataclass(frozen=True, slots=True)
class Stage:
    """A rung that was climbed: everybody on it, and who goes on."""

    name: str
    num_items: int
    standings: tuple[Standing, ...]
    on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """`standings` of those that are left, on all that is chosen on; `rounds`: seconds by domain and
    profile, a round each; `reported`: the chosen ones on what is reported on, `tested` the same
    over all domains, by name."""

    stages: tuple[Stage, ...]
    standings: tuple[Standing, ...]
    words: Mapping[str, int]
    rounds: tuple[Mapping[str, Seconds], ...]
    choices: tuple[Choice, ...]
    tested: Mapping[str, Standing]
    reported: tuple[DomainResult, ...]

    def profile(self, name: str) -> Profile:
        return next(one.profile for one in self.standings if one.profile.name == name)

    def whole_rounds(self, domain: str | None = None) -> list[Seconds]:
        """Seconds by profile of each round, over one domain or all."""
        return [whole(one, domain) for one in self.rounds]


def whole(seconds: Mapping[str, Seconds], domain: str | None = None) -> Seconds:
    some = [seconds[domain]] if domain else list(seconds.values())
    return {name: sum(one[name] for one in some) for name in some[0]}


def search(
    space: Space,
    train: Sequence[Place],
    test: Sequence[Place],
    plan: Plan,
    bench: Bench,
    watcher: Watcher,
) -> Found:
    """Raises ConfigError where nothing is said in the recordings, and what trying raises."""
    ahead = _Ahead(space, train, test, plan, bench)
    stages = _climb(space, train, plan, bench, watcher, ahead)
    last = stages[-1]
    standings = tuple(s for s in last.standings if s.profile.name in last.on)
    words = _words(bench.trials(REFERENCE, train, last.name), train)
    rounds: Sequence[Mapping[str, Seconds]] = []
    if standings:
        profiles = [REFERENCE, *(one.profile for one in standings)]
        watcher.begins("speed, in turns with dense", ahead.after_rungs(len(standings)))
        rounds = bench.rounds(profiles, first_of(train, TIMED), plan.rounds)
    choices = choose(standings, [whole(one) for one in rounds], words, plan)
    names = list(dict.fromkeys(one.chosen for one in choices if one.chosen))
    chosen = [one.profile for one in standings if one.profile.name in names]
    watcher.begins("the test split", ahead.on_test(chosen))
    tested, reported = _report(chosen, test, plan, bench)
    return Found(
        tuple(stages), standings, words, tuple(rounds), tuple(choices), tested, tuple(reported)
    )


def _climb(
    space: Space,
    train: Sequence[Place],
    plan: Plan,
    bench: Bench,
    watcher: Watcher,
    ahead: _Ahead,
) -> list[Stage]:
    candidates = list(space.candidates)
    steps = ahead.steps
    stages: list[Stage] = []
    for number, rung in enumerate(steps):
        places = first_of(train, rung.num_items)
        name = named(rung)
        watcher.begins(f"dense, {name}", ahead.from_rung(number, candidates))
        reference = bench.trials(REFERENCE, places, name)
        standings = []
        for candidate in candidates:
            watcher.begins(name, ahead.from_rung(number, candidates))
            trials = bench.trials(candidate, places, name)
            standings.append(standing(candidate, trials, reference, places, plan.seed, bench))
        last = number + 1 == len(steps)
        room = plan.survivors if last else steps[number + 1].candidates
        on = better(standings, room, max(plan.budgets))
        candidates = [one.profile for one in on]
        stages.append(Stage(name, len(places), tuple(standings), tuple(p.name for p in candidates)))
        watcher.ended(stages[-1])
        if not candidates:
            break
    return stages


def named(rung: Rung) -> str:
    if rung.num_items is None:
        return "all recordings"
    return f"first {rung.num_items} recordings"


def first_of(places: Sequence[Place], number: int | None) -> list[Place]:
    """The first of each domain; None: all."""
    return [place for place in places if number is None or place.number < number]


def standing(
    profile: Profile,
    trials: Sequence[Trial],
    reference: Sequence[Trial],
    places: Sequence[Place],
    seed: int,
    bench: Bench,
) -> Standing:
    """A candidate against dense on the same recordings."""
    domains = {domain: num for domain, num in _words(reference, places).items() if num}
    ours, theirs = ([trial.outcome.errors for trial in some] for some in (trials, reference))

    def of(domain: str | None) -> list[int]:
        return [n for n, place in enumerate(places) if domain is None or place.domain == domain]

    estimates = {
        domain: difference(
            [ours[n].total for n in of(domain)],
            [theirs[n].total for n in of(domain)],
            [theirs[n].words for n in of(domain)],
            seed,
        )
        for domain in (None, *domains)
    }
    dense = bench.operations(REFERENCE, reference)
    return Standing(
        profile,
        estimates[None],
        {domain: estimates[domain] for domain in domains},
        bench.operations(profile, trials) / dense if dense else 1.0,
    )


def _words(trials: Sequence[Trial], places: Sequence[Place]) -> dict[str, int]:
    """Of reference, by domain. Raises ConfigError where there are none at all."""
    words = dict.fromkeys((place.domain for place in places), 0)
    for place, trial in zip(places, trials, strict=True):
        words[place.domain] += trial.outcome.errors.words
    if not any(words.values()):
        raise ConfigError("nothing is said in these recordings: there are no words to miss")
    return words


def _report(
    chosen: Sequence[Profile], test: Sequence[Place], plan: Plan, bench: Bench
) -> tuple[dict[str, Standing], list[DomainResult]]:
    if not chosen:
        return {}, []
    every = {p.name: bench.trials(p, test, "test") for p in (REFERENCE, *chosen)}
    tested = {
        p.name: standing(p, every[p.name], every[DENSE], test, plan.seed, bench) for p in chosen
    }
    results = []
    for domain in dict.fromkeys(place.domain for place in test):
        of = [n for n, place in enumerate(test) if place.domain == domain]
        some = {name: [trials[n] for n in of] for name, trials in every.items()}
        found = compared(
            {name: tuple(trial.outcome for trial in trials) for name, trials in some.items()},
            {name: sum(trial.num_windows for trial in trials) for name, trials in some.items()},
            DENSE,
            seed=plan.seed,
        )
        results.append(DomainResult(domain, tuple(test[n].item for n in of), tuple(found)))
    return tested, results


class _Ahead:
    """How many answers are still to be waited for: exactly of what is being done, at most of what
    comes after it."""

    def __init__(
        self,
        space: Space,
        train: Sequence[Place],
        test: Sequence[Place],
        plan: Plan,
        bench: Bench,
    ) -> None:
        self._train, self._test, self._plan, self._bench = train, test, plan, bench
        most = max(place.number + 1 for place in train)
        self.steps = rungs(len(space.candidates), most, plan.first, plan.survivors)

    def from_rung(self, number: int, candidates: Sequence[Profile]) -> int:
        places = first_of(self._train, self.steps[number].num_items)
        now = sum(self._bench.num_missing(one, places) for one in (REFERENCE, *candidates))
        later, have = 0, len(places)
        left = len(candidates)
        for rung in self.steps[number + 1 :]:
            left = min(left, rung.candidates)
            reach = len(first_of(self._train, rung.num_items))
            later, have = later + (left + 1) * (reach - have), reach
        return now + later + self.after_rungs(min(left, self._plan.survivors))

    def after_rungs(self, num_standings: int) -> int:
        timed = len(first_of(self._train, TIMED))
        at_most = 1 + min(num_standings, len(self._plan.budgets))
        return (1 + num_standings) * timed * self._plan.rounds + at_most * len(self._test)

    def on_test(self, chosen: Sequence[Profile]) -> int:
        if not chosen:
            return 0
        return sum(self._bench.num_missing(one, self._test) for one in (REFERENCE, *chosen))
