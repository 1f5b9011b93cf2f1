"""What is run: settings, sets and paths, and how long it will take. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from service.lab.breakdown import DENSE, PIECES, WHOLE, Job
from service.lab.reproduce.eas.data import Gathered, Role
from service.profiles import AGGREGATIONS, Profile

# What the paper shows its runtime of: half the frames, after the second layer.
LAYER, SPARSITY = 2, 0.5
# Where it finds its best solutions, by its abstract: early, and 40 to 60% dropped.
EARLY_LAYERS, BEST_SPARSITIES = 3, (0.4, 0.6)
BOUND_POINTS = 1.0  # "under 1% accuracy degradation", taken as a point of WER
SPEEDUP = 1.6
REPEATS_ABOVE = 0.8  # the sparsity beyond which it names repetition

ATTENTION, STRIDE, MEANS, NEAR = "attention", "every n-th", "means", "attention within pairs"
RIVALS = (ATTENTION, NEAR, STRIDE, MEANS)  # at one layer and sparsity, so of equal k


def setting(way: str, layer: int, sparsity: float, aggregation: str = "mean") -> Profile:
    """A way to keep frames at a layer and a sparsity, as a profile.

    `attention`: as published, the attention that a frame receives, all frames competing, in the
    mean over heads or another aggregation; `attention within pairs`: the loudest head decides
    between two neighbours.
    """
    label = way.replace(" ", "-") + ("" if aggregation == "mean" else f"-{aggregation}")
    profile = Profile(f"{label}-{layer}-{sparsity:g}", layer, sparsity)
    match way:
        case "attention":
            return replace(profile, aggregation=aggregation)
        case "every n-th":
            return replace(profile, selection="stride")
        case "means":
            return replace(profile, pool="mean")
        case "attention within pairs":
            return replace(profile, aggregation="max", within=2)
    raise ValueError(f"unknown way {way!r}")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is tried. `ladder`: sparsities at which repetition is looked at; `num_tokens`: how
    many a timed window decodes; `rounds`: of timing."""

    layers: tuple[int, ...]
    sparsities: tuple[float, ...]
    ladder: tuple[float, ...]
    batches: tuple[int, ...]
    rounds: int
    num_tokens: int
    layer: int = LAYER

    @property
    def cut_batches(self) -> tuple[int, ...]:
        """Those at which the parts of the work are timed: the smallest and the largest."""
        return tuple(dict.fromkeys((min(self.batches), max(self.batches))))

    @property
    def grid(self) -> list[Profile]:
        return [setting(ATTENTION, at, share) for at in self.layers for share in self.sparsities]


def size_of(num_layers: int, *, quick: bool = False) -> Size:
    """Of a model with so many encoder layers: the first three, the middle, and three quarters."""
    layers = {1, 2, 3, num_layers // 2, 3 * num_layers // 4}
    layer = min(LAYER, num_layers)
    if quick:
        return Size((layer,), (0.4, 0.6), (0.5, 0.9), (1, 2), 2, 20, layer)
    return Size(
        layers=tuple(sorted(n for n in layers if 0 < n < max(num_layers, 2))),
        sparsities=(0.2, 0.4, 0.5, 0.6, 0.8),
        ladder=(0.5, 0.7, 0.8, 0.9),
        batches=(1, 2, 4, 8),
        rounds=3,
        num_tokens=100,
        layer=layer,
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """A profile's texts of a set; `raw`: the decoder's first text, or through the service."""

    set_name: str
    raw: bool
    profile: Profile


def search_cells(size: Size, gathered: Gathered) -> list[Cell]:
    """The first experiment: every layer with every sparsity."""
    profiles = [DENSE, *size.grid]
    return [Cell(s.name, True, p) for s in gathered.of(Role.SEARCH) for p in profiles]


def check_cells(size: Size, gathered: Gathered, chosen: Mapping[bool, Profile]) -> list[Cell]:
    """All that is reported on recordings which nothing was chosen on.

    `chosen`: what the search chose, by whether on full windows.
    """
    here = [DENSE, *(setting(way, size.layer, SPARSITY) for way in RIVALS)]
    cells = []
    for held in gathered.of(Role.HELD):
        best = [chosen[held.full]] if held.full in chosen else []
        more = [setting(way, one.layer, one.sparsity) for one in best for way in (STRIDE, MEANS)]
        if held.full or not gathered.of(Role.HELD, full=True):
            more += deeper(size)
        cells += [Cell(held.name, True, p) for p in [*here, *best, *more]]
        cells += [Cell(held.name, False, p) for p in [*here, *best]]
    for role in (Role.NOISE, Role.OTHER):
        cells += [Cell(one.name, True, p) for one in gathered.of(role) for p in here]
    return list(dict.fromkeys(cells))


def deeper(size: Size) -> list[Profile]:
    """Aggregations, and sparsities up to where texts repeat themselves."""
    return [
        *(setting(ATTENTION, size.layer, SPARSITY, how) for how in AGGREGATIONS),
        *(
            setting(way, size.layer, share)
            for way in (ATTENTION, STRIDE, MEANS)
            for share in size.ladder
        ),
    ]


def jobs(size: Size) -> list[Job]:
    """The second experiment, by batch; and the time of every setting of the search."""
    published, means = (setting(way, size.layer, SPARSITY) for way in (ATTENTION, MEANS))
    found = []
    for batch in size.batches:
        pieces = PIECES if batch in size.cut_batches else WHOLE
        found += [Job(piece, published, batch) for piece in pieces]
        for other in (DENSE, means):
            found += [Job(piece, other, batch) for piece in WHOLE]
    for profile in size.grid:
        encodes, decodes = Job(WHOLE[0], profile), decodes_like(size, profile)
        found += [encodes, *(Job(piece, decodes) for piece in WHOLE[1:])]
    return list({job.name: job for job in found}.values())


def decodes_like(size: Size, profile: Profile) -> Profile:
    """Whose decoder's time is timed for it: that depends on how many frames are kept alone."""
    return replace(size.grid[0], name=f"any-{profile.sparsity:g}", sparsity=profile.sparsity)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run is worked out from: seconds of a text, as measured, and of timing."""

    per_text_s: float
    timing_s: float

    def seconds(self, sizes: Sequence[int]) -> float:
        """Of cells with so many recordings each, and of what is timed."""
        return self.per_text_s * sum(sizes) + self.timing_s

    def limit(self, budget_s: float, sizes: Sequence[int]) -> int:
        """The most recordings of a set that keep within the budget; at least 2."""
        for limit in range(max(sizes), 2, -1):
            if self.seconds([min(limit, size) for size in sizes]) <= budget_s:
                return limit
        return 2


def timing_share(size: Size, num_layers: int) -> float:
    """How many dense windows, about, are as long as all that is timed: an encoder's share by its
    layers, at the frames that it sees."""
    windows = 0.0
    for job in jobs(size):
        kept = 1 - job.profile.sparsity
        early = job.profile.layer / num_layers if job.profile.sparsity else 1.0
        share = {
            "stem": 0.05,
            "before": early,
            "drop": early,
            "encode": early + (1 - early) * kept,
            "cross": 0.1,
            "steps": 0.3,
        }[job.piece]
        windows += share * job.batch
    return windows * size.rounds
