"""For each budget of errors the fastest profile of which it is shown that it keeps to it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.lab.search.halving import Plan, Standing, order
from service.lab.statistics import least_words

Rounds = Sequence[Mapping[str, float]]  # seconds that each profile took in a round, by name
DENSE = "dense"


@dataclass(frozen=True, slots=True)
class Choice:
    """`chosen` is the name of a candidate; None where none keeps to the budget, and `why`."""

    budget_points: float
    chosen: str | None
    why: str


def ratios(rounds: Rounds, name: str, reference: str = DENSE) -> list[float]:
    """How many times as fast as the reference, round by round: what is slow for a while is slow
    for both."""
    return [seconds[reference] / seconds[name] for seconds in rounds]


def speed(rounds: Rounds, name: str) -> float:
    """Times dense's: the median of the rounds."""
    return statistics.median(ratios(rounds, name))


def upper_points(one: Standing, *, each: bool) -> float:
    """Percentage points that the difference may be at most, at 95%; with `each` in any domain."""
    ends = [found.high for found in one.by_domain.values()] if each else []
    return 100 * max([one.difference.high, *ends])


def choose(
    standings: Sequence[Standing], rounds: Rounds, words: Mapping[str, int], plan: Plan
) -> list[Choice]:
    """One choice for each budget. `words` of reference by domain; `rounds` may be empty where
    nothing goes by the clock."""
    return [_choose(standings, rounds, words, plan, budget) for budget in plan.budgets]


def _choose(
    standings: Sequence[Standing],
    rounds: Rounds,
    words: Mapping[str, int],
    plan: Plan,
    budget: float,
) -> Choice:
    said = min(num for num in words.values() if num) if plan.each else sum(words.values())
    if said < (least := least_words(budget)):
        where = "the smallest domain has" if plan.each else "there are"
        return Choice(
            budget,
            None,
            f"too little speech to tell: {where} {said:,} words, and even without an error more "
            f"it takes {least:,} to show that at 95%",
        )
    if not standings:
        return Choice(budget, None, "every candidate is too far from dense on the first recordings")
    within = [one for one in standings if upper_points(one, each=plan.each) <= budget]
    quicker = [one for one in within if _gain(one, rounds, plan) > 1]
    if quicker:
        best = min(quicker, key=lambda one: (-_gain(one, rounds, plan), order(one)))
        return Choice(budget, best.profile.name, _because(best, plan))
    if within:
        names = ", ".join(one.profile.name for one in within)
        return Choice(budget, None, f"no faster than dense, although within the budget: {names}")
    nearest = min(standings, key=lambda one: (upper_points(one, each=plan.each), order(one)))
    return Choice(
        budget,
        None,
        f"none of the {len(standings)} that were tried on all recordings is shown to keep to it; "
        f"{nearest.profile.name} is nearest, {_because(nearest, plan)}",
    )


def _gain(one: Standing, rounds: Rounds, plan: Plan) -> float:
    return speed(rounds, one.profile.name) if plan.by_clock else 1 / one.work


def _because(one: Standing, plan: Plan) -> str:
    upper = upper_points(one, each=plan.each)
    return signed(f"{100 * one.difference.value:+.2f} points, at most {upper:+.2f}")


def signed(text: str) -> str:
    """With the sign that is as wide as a plus."""
    return text.replace("-", "\N{MINUS SIGN}")


def clearly_faster(
    choice: Choice, standings: Sequence[Standing], rounds: Rounds, plan: Plan
) -> str | None:
    """The fastest of those that keep to the budget as well, and were faster than the chosen one in
    every round."""
    if choice.chosen is None or plan.by_clock or not rounds:
        return None
    faster = [
        one.profile.name
        for one in standings
        if upper_points(one, each=plan.each) <= choice.budget_points
        and all(ratio > 1 for ratio in ratios(rounds, one.profile.name, choice.chosen))
    ]
    return max(faster, key=lambda name: speed(rounds, name), default=None)
