"""What was claimed, and what these figures say of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.lab.statistics import Estimate

LEAST_ITEMS = 5  # recordings; an interval over fewer is no interval


class Verdict(StrEnum):
    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "not decided"


@dataclass(frozen=True, slots=True)
class Claim:
    """`said`: the claim; `by`: whose it is; `found`: what these figures say, in a sentence;
    `tried`: what else was tried to be fair to it, and what came of that."""

    said: str
    by: str
    verdict: Verdict
    found: str
    tried: tuple[str, ...] = ()


def at_most(points: Estimate, bound: float, num_items: int) -> Verdict:
    """Whether a loss is at most `bound`, by its interval."""
    if num_items < LEAST_ITEMS:
        return Verdict.OPEN
    if points.high <= bound:
        return Verdict.HOLDS
    return Verdict.FAILS if points.low > bound else Verdict.OPEN


def any_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a claim that there is one: one suffices, and it fails where all do."""
    found = list(verdicts)
    if Verdict.HOLDS in found:
        return Verdict.HOLDS
    return Verdict.FAILS if found and set(found) == {Verdict.FAILS} else Verdict.OPEN


def all_of(verdicts: Iterable[Verdict]) -> Verdict:
    """Of a claim about every case: one that fails suffices against it."""
    found = list(verdicts)
    if Verdict.FAILS in found:
        return Verdict.FAILS
    return Verdict.HOLDS if found and set(found) == {Verdict.HOLDS} else Verdict.OPEN


def in_points(points: Estimate) -> str:
    """`+0.5 (+0.1 to +1.1)`: a difference in points with its 95% interval."""
    value, low, high = (signed(one) for one in (points.value, points.low, points.high))
    return f"{value} ({low} to {high})"


def signed(value: float) -> str:
    # Rounded first: a minus before 0.0 says nothing.
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")


def counted(claims: Sequence[Claim]) -> str:
    """How many hold, in a sentence."""
    by = {verdict: sum(claim.verdict == verdict for claim in claims) for verdict in Verdict}
    return (
        f"Of {len(claims)} claims {by[Verdict.HOLDS]} hold, {by[Verdict.FAILS]} do not, and "
        f"{by[Verdict.OPEN]} are not decided by these recordings."
    )


def listed(claims: Sequence[Claim]) -> str:
    """A line for each claim, and how many hold."""
    width = max(len(claim.verdict) for claim in claims)
    lines = [f"{claim.verdict:<{width}}  {claim.said}. {claim.found}" for claim in claims]
    return "\n".join([*lines, counted(claims)])
