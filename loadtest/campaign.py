"""Which steps a run takes: profiles in turns, so that what else the machine does hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from loadtest.find_max import Search, Trial, maximum
from loadtest.results import MAXIMUM, OVERLOAD, RATE, SEARCH, SOAK, Step, StepResult

Run = Callable[[Step], StepResult]


def turns(profiles: Sequence[str], number: int) -> list[str]:
    """The profiles in the order of their turn: each round another one begins."""
    first = number % len(profiles)
    return [*profiles[first:], *profiles[:first]]


def at_rates(
    profiles: Sequence[str],
    rates: Sequence[float],
    seconds: float,
    rounds: int,
    seed: int,
    run: Run,
) -> None:
    """Every rate with every profile, `rounds` times; one rate and round has one seed for all."""
    plan = [rate for _ in range(rounds) for rate in rates]
    for number, rate in enumerate(plan):
        for profile in turns(profiles, number):
            run(Step(RATE, profile, rate, seconds, seed + number))


def find_maxima(
    profiles: Sequence[str], search: Search, seconds: float, seed: int, run: Run
) -> dict[str, StepResult | None]:
    """Each profile's step at the highest rate that held; None where none did."""
    tried: dict[str, list[StepResult]] = {profile: [] for profile in profiles}
    open_profiles, number = list(profiles), 0
    while open_profiles:
        for profile in turns(open_profiles, number):
            rate = search.next_rate(_trials(tried[profile]))
            if rate is None:
                open_profiles.remove(profile)
            else:
                step = Step(SEARCH, profile, rate, seconds, seed + number)
                tried[profile].append(run(step))
        number += 1
    return {profile: _best(results) for profile, results in tried.items()}


def _trials(results: Sequence[StepResult]) -> list[Trial]:
    return [Trial(result.step.rate, result.held) for result in results]


def _best(results: Sequence[StepResult]) -> StepResult | None:
    rate = maximum(_trials(results))
    return next((r for r in results if r.held and r.step.rate == rate), None)


def at_maxima(
    rates: Mapping[str, float], seconds: float, seed: int, run: Run
) -> dict[str, StepResult | None]:
    """One step at each profile's maximum that is known from an earlier run."""
    return {p: run(Step(MAXIMUM, p, rate, seconds, seed)) for p, rate in rates.items()}


def soak(
    maxima: Mapping[str, StepResult | None], share: float, seconds: float, seed: int, run: Run
) -> None:
    """A long step of each profile at a share of its maximum."""
    for profile, best in maxima.items():
        if best is not None:
            run(Step(SOAK, profile, share * best.step.rate, seconds, seed))


@dataclass(frozen=True, slots=True)
class Overload:
    """A step far above the maximum, relative to the step at the maximum."""

    profile: str
    factor: float
    goodput_requests: float
    goodput_audio: float
    refused_share: float
    told_to_return: int
    returned: int
    returned_accepted_share: float | None


def overload(
    maxima: Mapping[str, StepResult | None], factor: float, seconds: float, seed: int, run: Run
) -> list[Overload]:
    """A step of each profile at a multiple of its maximum."""
    found = []
    for profile, best in maxima.items():
        if best is not None:
            result = run(Step(OVERLOAD, profile, factor * best.step.rate, seconds, seed))
            found.append(_relative(result, best, factor))
    return found


def _relative(result: StepResult, best: StepResult, factor: float) -> Overload:
    returns = result.summary.returns
    return Overload(
        profile=result.step.profile,
        factor=factor,
        goodput_requests=_ratio(result.summary.goodput_rps, best.summary.goodput_rps),
        goodput_audio=_ratio(result.summary.rtfx, best.summary.rtfx),
        refused_share=result.summary.refused_share,
        told_to_return=returns.asked,
        returned=returns.sent,
        returned_accepted_share=returns.accepted_share,
    )


def _ratio(over: float, at_maximum: float) -> float:
    return over / at_maximum if at_maximum else 0.0
