"""When requests are due: an open loop, decided before anything is sent. Pure."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

LAWS = ("poisson", "constant")


def arrivals(law: str, rate: float, seed: int = 0) -> Iterator[float]:
    """Seconds from the start at which requests are due, without end, `rate` a second on average.

    `poisson` draws independent gaps, as many people who know nothing of each other make them;
    one seed makes one pattern, which another rate only stretches. `constant` has equal gaps.
    Raises ValueError for another law or a rate that is not positive.
    """
    if law not in LAWS:
        raise ValueError(f"arrivals {law!r}: use one of {', '.join(LAWS)}")
    if not rate > 0:
        raise ValueError(f"rate {rate}: must be more than 0 requests a second")
    return _poisson(rate, seed) if law == "poisson" else (i / rate for i in itertools.count())


def schedule(law: str, rate: float, seconds: float, seed: int = 0) -> Iterator[float]:
    """The arrivals of a step that lasts `seconds`."""
    return itertools.takewhile(lambda due_s: due_s < seconds, arrivals(law, rate, seed))


def _poisson(rate: float, seed: int) -> Iterator[float]:
    gaps = random.Random(seed)
    due_s = 0.0
    while True:
        due_s += gaps.expovariate(1.0) / rate
        yield due_s
