"""Successive halving: all candidates on few recordings, the better ones on twice as many.

Sources: Jamieson and Talwalkar (arXiv 1502.07943) for the halving, Deb and others (NSGA-II, IEEE
Transactions on Evolutionary Computation 6(2), 2002) for going by fronts where there are two aims.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.lab.packing import Item
from service.lab.statistics import Estimate
from service.profiles import Profile


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate on the recordings that it has read so far.

    `difference`: of its word error rate to dense's, a share of the words, with its paired
    interval; `by_domain` the same of each domain in which something is said. `work`: arithmetic as
    a share of dense's.
    """

    profile: Profile
    difference: Estimate
    by_domain: Mapping[str, Estimate]
    work: float


@dataclass(frozen=True, slots=True)
class Rung:
    """`candidates` are tried on the first `num_items` recordings of each domain; None: on all."""

    candidates: int
    num_items: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """`first`: recordings of a domain that all candidates are tried on; at most `survivors` are
    tried on all of them, where the first are not all already. `rounds`: how often those that are
    left are timed. Budgets are percentage points of word error rate; `each`: they have to hold in
    each domain by itself. `by_clock`: the fastest is who was measured fastest, not who has the
    least to compute."""

    first: int = 16
    survivors: int = 8
    rounds: int = 3
    budgets: tuple[float, ...] = (0.2, 0.5, 1.0)
    each: bool = False
    by_clock: bool = False
    seed: int = 0


def rungs(num_candidates: int, most_items: int, first: int, survivors: int) -> list[Rung]:
    """`most_items`: recordings of the largest domain. Half go from rung to rung, while twice as
    many recordings are read."""
    found = []
    left, items = num_candidates, first
    while left > survivors and items < most_items:
        found.append(Rung(left, items))
        left, items = max(survivors, (left + 1) // 2), 2 * items
    return [*found, Rung(left, None)]


def fronts(standings: Sequence[Standing]) -> list[list[Standing]]:
    """First those that no other is both as right and as quick as and better in one; then those
    that only the first ones beat; and so on. Each in order of its difference."""
    left = sorted(standings, key=order)
    found = []
    while left:
        front = [one for one in left if not any(_beats(other, one) for other in left)]
        left = [one for one in left if one not in front]
        found.append(front)
    return found


def order(one: Standing) -> tuple[float, float, str]:
    """Fewer errors, less work, and so that nothing is left to chance, the name."""
    return one.difference.value, one.work, one.profile.name


def _beats(one: Standing, other: Standing) -> bool:
    ours, theirs = (s.difference.value for s in (one, other))
    no_worse = ours <= theirs and one.work <= other.work
    return no_worse and (ours < theirs or one.work < other.work)


def better(standings: Sequence[Standing], number: int, most_points: float) -> list[Standing]:
    """At most `number` of them, front by front; of the last front that not all have room of, those
    with the fewest errors. Left out: those whose whole interval is above `most_points`."""
    hopeful = [one for one in standings if 100 * one.difference.low <= most_points]
    return [one for front in fronts(hopeful) for one in front][:number]


def in_order(items: Sequence[Item], seed: int) -> list[Item]:
    """Recordings so that the first of them, however many, are of as many speakers as possible.

    By a digest of seed and name: the order of some is not changed by others, nor by a version of a
    library.
    """
    groups: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda item: _draw(seed, item.name)):
        groups.setdefault(item.speaker, []).append(item)
    turns = max((len(group) for group in groups.values()), default=0)
    return [group[turn] for turn in range(turns) for group in groups.values() if turn < len(group)]


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()
