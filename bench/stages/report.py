"""Rounds of stages to a table, figures and a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import costs
from bench.costs import Cost, Rates, Work
from bench.stages.measure import Seconds
from service.model.protocol import ModelInfo

ASIDE = ("words",)  # only where word times are asked for
HEADS = "| {} | least, median, most | share | should cost | bound by | reached |"


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured, on what, and the machine's rates. A pair of `rounds` has the stages of
    all windows, and the parts of one step of them."""

    info: ModelInfo
    work: Work
    rates: Rates
    rounds: Sequence[tuple[Seconds, Seconds]]

    @property
    def about(self) -> str:
        """In a sentence."""
        info, work = self.info, self.work
        weights = "" if info.weight_dtype == info.dtype else f", weights in {info.weight_dtype}"
        return (
            f"{info.name}, {work.profile.name} ({work.kept} of {work.dims.num_frames} frames), "
            f"{info.dtype}{weights}, {work.windows} windows at once, {work.tokens} tokens each; "
            f"matrix products {self.rates.matrix / 1e9:.0f} GFLOP/s in {info.dtype}, copies "
            f"{self.rates.copy / 1e9:.1f} GB/s"
        )

    @property
    def stages(self) -> list[Seconds]:
        return [one for one, _ in self.rounds]

    @property
    def steps(self) -> list[Seconds]:
        return [one for _, one in self.rounds]


def tables(found: Found) -> list[str]:
    """What it is of, the stages, and the parts of a step."""
    work, rates = found.work, found.rates
    stages = _table("stage, ms a window", found.stages, costs.stages(work), rates, work.windows)
    steps = _table("of a step of all, ms", found.steps, costs.step(work), rates, 1)
    return [found.about, stages, steps]


def _table(
    what: str,
    rounds: Sequence[Seconds],
    should: Mapping[str, Cost],
    rates: Rates,
    share: int,
) -> str:
    """`share`: among how many the seconds are shared."""
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    total = sum(seconds for name, seconds in medians.items() if name not in ASIDE)
    lines = [HEADS.format(what), "|---" * 6 + "|"]
    for name, median in medians.items():
        times = sorted(one[name] for one in rounds)
        cost = should[name].seconds(rates)
        if not cost and not median:
            continue
        least, middle, most, least_cost = (
            1000 * seconds / share for seconds in (times[0], median, times[-1], cost)
        )
        part = "aside" if name in ASIDE else f"{median / total:.0%}"
        lines.append(
            f"| {name} | {least:.2f} / **{middle:.2f}** / {most:.2f} | {part} | {least_cost:.2f} "
            f"| {should[name].bound(rates)} | {cost / median if median > 0 else 0:.0%} |"
        )
    least_all = sum(cost.seconds(rates) for name, cost in should.items() if name not in ASIDE)
    lines.append(
        f"| all | **{1000 * total / share:.2f}** | | {1000 * least_all / share:.2f} | "
        f"| {least_all / total:.0%} |"
    )
    return "\n".join(lines)


def as_json(found: Found) -> dict[str, Any]:
    """Seconds of every round, and what they should have been."""

    def one(rounds: Sequence[Seconds], should: Mapping[str, Cost]) -> dict[str, Any]:
        return {
            name: {
                "seconds": [seconds[name] for seconds in rounds],
                "flops": cost.flops,
                "bytes": cost.bytes,
                "should_s": cost.seconds(found.rates),
            }
            for name, cost in should.items()
        }

    return {
        "about": found.about,
        "matrix_flops_s": found.rates.matrix,
        "copy_bytes_s": found.rates.copy,
        "stages": one(found.stages, costs.stages(found.work)),
        "step": one(found.steps, costs.step(found.work)),
    }


def plot(found: Found, path: Path) -> None:
    """Measured and due, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    work = found.work
    whole = f"{found.info.name}, {work.profile.name}: stages, ms a window"
    _bars(axes[0], found.stages, costs.stages(work), found.rates, 1000 / work.windows)
    _bars(axes[1], found.steps, costs.step(work), found.rates, 1000)
    axes[0].set_title(whole)
    axes[1].set_title(f"a step of {work.windows} windows, ms")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _bars(
    axis: Any, rounds: Sequence[Seconds], should: Mapping[str, Cost], rates: Rates, scale: float
) -> None:
    names = list(rounds[0])
    medians = [scale * statistics.median(one[name] for one in rounds) for name in names]
    due = [scale * should[name].seconds(rates) for name in names]
    places = np.arange(len(names))
    axis.barh(places - 0.2, medians, 0.4, label="measured", color="#445566")
    axis.barh(places + 0.2, due, 0.4, label="should cost", color="#b5651d")
    axis.set_yticks(places, names)
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    axis.legend()
