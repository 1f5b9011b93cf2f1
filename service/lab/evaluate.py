"""Profiles on the same recordings, domain by domain: words, what goes wrong, and speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from tqdm import tqdm

from service.errors import ConfigError
from service.lab.material import Domain, Material
from service.lab.outcomes import Figures, figures
from service.lab.packing import Item
from service.lab.runs import How, Run, Service
from service.lab.times import compare
from service.profiles import Profile

DENSE = "dense"


@dataclass(frozen=True, slots=True)
class DomainResult:
    """What every profile made of a domain's recordings."""

    domain: str
    items: tuple[Item, ...]
    figures: tuple[Figures, ...]

    @property
    def seconds(self) -> float:
        return sum(item.seconds for item in self.items)


def evaluate(
    service: Service,
    material: Material,
    domains: Sequence[Domain],
    profiles: Sequence[Profile],
    how: How,
    *,
    num_rounds: int = 0,
) -> Iterator[DomainResult]:
    """Results, a domain at a time. `profiles` have dense among them.

    With `num_rounds` each profile goes over the material so many times more, taking turns, and
    is timed. Raises what `Material.items` and the pipeline raise.
    """
    for domain in domains:
        items = material.items(domain)
        total = len(items) * len(profiles) * (1 + num_rounds)
        with tqdm(total=total, desc=domain.name, unit="file", leave=False, disable=None) as bar:
            runs = {p.name: service.run(items, p, how, bar.update) for p in profiles}

            def seconds(profile: Profile, items: list[Item] = items) -> float:
                return service.run(items, profile, how, bar.update).seconds

            took = in_turns(profiles, num_rounds, seconds)
        audio_s = sum(item.seconds for item in items)
        found = figures(
            items,
            runs,
            DENSE,
            seed=material.seed,
            speeds={name: [audio_s / s for s in some] for name, some in took.items()},
            times=_times(items, runs) if how.word_times else None,
        )
        yield DomainResult(domain.name, tuple(items), tuple(found))


def _times(items: Sequence[Item], runs: dict[str, Run]) -> dict[str, dict[str, float]]:
    reference = runs[DENSE].answers
    languages = [item.language for item in items]
    return {
        name: compare(reference, run.answers, languages).summary()
        for name, run in runs.items()
        if name != DENSE
    }


class Named(Protocol):
    """A profile, or whatever else takes turns."""

    @property
    def name(self) -> str: ...


Turn = TypeVar("Turn", bound=Named)


def in_turns(
    sides: Sequence[Turn], num_rounds: int, seconds: Callable[[Turn], float]
) -> dict[str, list[float]]:
    """What each side took in each round; every round begins with the next one."""
    took: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(num_rounds):
        first = number % len(sides)
        for side in (*sides[first:], *sides[:first]):
            took[side.name].append(seconds(side))
    return took


def grid(text: str, like: Profile) -> list[Profile]:
    """`LAYERS:SPARSITIES`, as in `1,2,3:0.4,0.5`: profiles that are otherwise as `like` is."""
    try:
        layers, sparsities = (part.split(",") for part in text.split(":"))
        pairs = [(int(layer), float(share)) for layer in layers for share in sparsities]
    except ValueError:
        raise ConfigError(f"--grid {text!r}: use LAYERS:SPARSITIES, as in 1,2,3:0.4,0.5") from None
    return [
        replace(like, name=f"{like.name}-{layer}-{share:g}", layer=layer, sparsity=share)
        for layer, share in pairs
    ]
