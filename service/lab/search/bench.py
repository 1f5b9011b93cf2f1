"""Candidates on recordings: through the service's path, or from the state where it is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from service.lab.evaluate import in_turns
from service.lab.runs import Answer, How, Service
from service.lab.search.state import State
from service.lab.search.trials import Place, Trial, trial_of
from service.lab.search.work import dims_of, operations, shares_of
from service.profiles import Profile

Seconds = dict[str, float]  # by profile


class Bench(Protocol):
    """What a search asks of whoever tries candidates."""

    def num_missing(self, profile: Profile, places: Sequence[Place]) -> int: ...

    def trials(self, profile: Profile, places: Sequence[Place], stage: str) -> list[Trial]: ...

    def operations(self, profile: Profile, trials: Sequence[Trial]) -> float: ...

    def rounds(
        self, profiles: Sequence[Profile], places: Sequence[Place], num_rounds: int
    ) -> list[dict[str, Seconds]]: ...


class ServiceBench:
    """`done` is called after each answer that was waited for."""

    def __init__(
        self, service: Service, state: State, how: How, done: Callable[[], object]
    ) -> None:
        self._service = service
        self._state = state
        self._how = how
        self._done = done
        self._dims = dims_of(service.model)

    def trials(self, profile: Profile, places: Sequence[Place], stage: str) -> list[Trial]:
        """Of each place; what is new is on disk before the next is answered."""
        missing = self._missing(profile, places)

        def answered(number: int, answer: Answer) -> None:
            place = missing[number]
            trial = trial_of(place.item, answer, self._dims.num_frames)
            self._state.add_trial(profile.name, stage, place, trial)

        if missing:
            items = [place.item for place in missing]
            run = self._service.run(items, profile, self._how, self._done, answered)
            if self._state.pace_s is None:
                self._state.add_pace(run.seconds / len(missing))
        found = [self._state.trial(profile.name, place) for place in places]
        return [trial for trial in found if trial is not None]

    def num_missing(self, profile: Profile, places: Sequence[Place]) -> int:
        """How many answers are not known yet."""
        return len(self._missing(profile, places))

    def _missing(self, profile: Profile, places: Sequence[Place]) -> list[Place]:
        return [place for place in places if self._state.trial(profile.name, place) is None]

    def operations(self, profile: Profile, trials: Sequence[Trial]) -> float:
        """What it cost to compute them."""
        return operations(self._dims, profile, trials, shares_of(self._service.model, profile))

    def rounds(
        self, profiles: Sequence[Profile], places: Sequence[Place], num_rounds: int
    ) -> list[dict[str, Seconds]]:
        """Seconds of each profile over the recordings of each domain, in turns.

        A round counts whole or not at all: of what was killed within one nothing is kept.
        """
        names = [profile.name for profile in profiles]
        known = self._state.rounds(names)
        domains = list(dict.fromkeys(place.domain for place in places))
        if len(known) < num_rounds:
            for profile in profiles:  # untimed: the first one after a start is slower
                self._service.run([places[0].item], profile, self._how)
        for number in range(len(known), num_rounds):
            first = number % len(profiles)
            turns = (*profiles[first:], *profiles[:first])
            found: dict[str, Seconds] = {}
            for domain in domains:
                items = [place.item for place in places if place.domain == domain]

                def seconds(profile: Profile, items: list = items) -> float:  # type: ignore[type-arg]
                    return self._service.run(items, profile, self._how, self._done).seconds

                found[domain] = {n: s[0] for n, s in in_turns(turns, 1, seconds).items()}
            self._state.add_round(found)
        return self._state.rounds(names)[:num_rounds]
