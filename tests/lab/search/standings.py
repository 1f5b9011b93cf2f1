"""Standings and recordings as tests need them."""

from __future__ import annotations

import numpy as np

from service.lab.packing import Item
from service.lab.search.halving import Standing
from service.lab.search.trials import Place
from service.lab.statistics import Estimate
from service.profiles import Profile


def estimate(points: float, half: float = 0.0) -> Estimate:
    return Estimate(points / 100, (points - half) / 100, (points + half) / 100)


def standing(name: str, points: float, work: float, half: float = 0.0) -> Standing:
    """In percentage points; `half` of the interval's width."""
    found = estimate(points, half)
    return Standing(Profile(name, sparsity=0.5), found, {"read": found}, work)


def clip(name: str, text: str = "one two", speaker: str = "x") -> Item:
    return Item(name, np.zeros(16, np.int16), text, "en", speaker)


def places(split: str, number: int, domain: str = "read") -> list[Place]:
    return [Place(split, domain, n, clip(f"{split} {domain} {n}")) for n in range(number)]
