"""One plot for each experiment, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.lab.breakdown import DENSE
from service.lab.drawing import COLOURS, MARKERS, new_figure, to_png
from service.lab.reproduce.eas.data import Recordings, Role
from service.lab.reproduce.eas.plan import (
    ATTENTION,
    BOUND_POINTS,
    MEANS,
    RIVALS,
    SPARSITY,
    STRIDE,
    setting,
)
from service.lab.reproduce.eas.results import Results
from service.lab.statistics import Estimate
from service.profiles import AGGREGATIONS, Profile

LOST = "points of WER above dense"
LINEAR_TO = 3  # points; a few and a hundred have to be seen in one plot


def search(results: Results) -> bytes:
    """Loss against speed, a panel for each kind of recordings: a line for each layer."""
    sets = results.of(Role.SEARCH)
    figure = new_figure(8, 4)
    for axes, of in zip(figure.subplots(1, len(sets), squeeze=False).flat, sets, strict=True):
        for number, layer in enumerate(results.size.layers):
            profiles = [setting(ATTENTION, layer, share) for share in results.size.sparsities]
            speeds = [results.speedup(profile).value for profile in profiles]
            losses = [results.loss(of, profile) for profile in profiles]
            _line(axes, speeds, losses, f"after layer {layer}", number)
            if number == 0:
                for share, x, loss in zip(results.size.sparsities, speeds, losses, strict=True):
                    axes.annotate(
                        f"{share:.0%}", (x, loss.value), (0, 7), textcoords="offset points",
                        fontsize=7, ha="center",
                    )  # fmt: skip
        axes.axhline(BOUND_POINTS, color="grey", linewidth=0.8, linestyle="--")
        axes.locator_params(axis="x", nbins=6)
        _points_scale(axes)
        _label(axes, f"{of.kind} (n={len(of.items)})", "times dense's speed, end to end", LOST)
    return to_png(figure)


def breakdown(results: Results) -> bytes:
    """Milliseconds of a window by part, dense and with half of the frames, by batch."""
    figure = new_figure(8, 1.2 + 0.75 * len(results.size.cut_batches))
    axes = figure.subplots()
    at = setting(ATTENTION, results.size.layer, SPARSITY)
    rows = [(batch, one) for batch in results.size.cut_batches for one in (DENSE, at)]
    parts = [results.parts(profile, batch) for batch, profile in rows]
    names = [f"batch {b}: {'dense' if p.is_dense else 'attention'}" for b, p in rows]
    left = [0.0] * len(rows)
    for number, name in enumerate(parts[0]):
        widths = [part[name] for part in parts]
        axes.barh(names, widths, left=left, label=name, color=COLOURS[number])
        left = [x + width for x, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel(f"ms a window, encoding and {results.size.num_tokens} tokens")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
    return to_png(figure)


def batches(results: Results) -> bytes:
    """How many times as fast as dense, by batch."""
    figure = new_figure(6, 3.2)
    axes = figure.subplots()
    for number, way in enumerate((ATTENTION, MEANS)):
        profile = setting(way, results.size.layer, SPARSITY)
        speeds = [results.speedup(profile, batch) for batch in results.size.batches]
        _line(axes, list(results.size.batches), speeds, way, number)
    axes.set_xscale("log", base=2)
    axes.set_xticks(results.size.batches, [str(batch) for batch in results.size.batches])
    axes.axhline(1, color="grey", linewidth=0.8, linestyle="--")
    _label(axes, "half the frames, from end to end", "windows at once", "times dense's speed")
    return to_png(figure)


def rivals(results: Results) -> bytes:
    """What each way to keep half the frames loses, raw and through the service."""
    sets = results.of(Role.HELD)
    profiles = {way: setting(way, results.size.layer, SPARSITY) for way in RIVALS}
    figure = new_figure(8, 1 + 0.9 * len(sets) * 2)
    axes = figure.subplots()
    rows = [(of, raw) for of in sets for raw in (True, False)]
    names = [f"{of.kind},\n{'raw' if raw else 'served'}" for of, raw in rows]
    for number, (way, profile) in enumerate(profiles.items()):
        losses = [results.loss(of, profile, raw=raw) for of, raw in rows]
        _dots(axes, losses, way, number, len(profiles))
    _across(axes, names)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8)
    return to_png(figure)


def elsewhere(results: Results) -> bytes | None:
    """The same in noise and on other recordings; None where there are none."""
    sets = [*results.of(Role.NOISE), *results.of(Role.OTHER)]
    if not sets:
        return None
    figure = new_figure(8, 1 + 0.9 * len(sets))
    axes = figure.subplots()
    for number, way in enumerate(RIVALS):
        profile = setting(way, results.size.layer, SPARSITY)
        _dots(axes, [results.loss(of, profile) for of in sets], way, number, len(RIVALS))
    _across(axes, [of.name.replace(", ", ",\n", 1) for of in sets])
    figure.legend(loc="outside upper center", ncols=4, fontsize=8)
    return to_png(figure)


def aggregations(results: Results, of: Recordings) -> bytes:
    """What each aggregation over heads loses."""
    figure = new_figure(6, 2.4)
    axes = figure.subplots()
    profiles = [setting(ATTENTION, results.size.layer, SPARSITY, how) for how in AGGREGATIONS]
    _dots(axes, [results.loss(of, profile) for profile in profiles], "", 0, 1)
    _across(axes, list(AGGREGATIONS))
    return to_png(figure)


def repetition(results: Results, of: Recordings) -> bytes:
    """Texts that repeat themselves, and words too much, by how much is dropped."""
    figure = new_figure(8, 3.2)
    looped, extra = figure.subplots(1, 2)
    for number, way in enumerate((ATTENTION, STRIDE, MEANS)):
        profiles = _ladder(results, way)
        shares = [100 * profile.sparsity for profile in profiles]
        counts = [sum(o.looped for o in results.outcomes(of, p)) for p in profiles]
        percent = [100 * count / len(of.items) for count in counts]
        style = {"color": COLOURS[number], "marker": MARKERS[number], "label": way}
        looped.plot(shares, percent, markersize=4, **style)
        _line(extra, shares, [results.too_much(of, p) for p in profiles], way, number)
    looped.set_ylim(bottom=0)
    _label(looped, "texts that repeat themselves, %", "frames dropped, %", "")
    _points_scale(extra)
    _label(extra, "words too much per 100, above dense", "frames dropped, %", "")
    return to_png(figure)


def _ladder(results: Results, way: str) -> list[Profile]:
    return [setting(way, results.size.layer, share) for share in sorted(results.size.ladder)]


def _line(axes: Any, x: Sequence[float], y: Sequence[Estimate], label: str, number: int) -> None:
    """Values with their intervals."""
    values = [one.value for one in y]
    errors = [[o.value - o.low for o in y], [o.high - o.value for o in y]]
    axes.errorbar(
        x, values, errors, label=label, color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)], markersize=4, linewidth=1.2, elinewidth=0.7,
        capsize=2,
    )  # fmt: skip


def _dots(axes: Any, losses: Sequence[Estimate], label: str, number: int, of: int) -> None:
    """A row's values one above another, so that none lies on another."""
    rows = [row + (number - (of - 1) / 2) * 0.18 for row in range(len(losses))]
    errors = [[o.value - o.low for o in losses], [o.high - o.value for o in losses]]
    axes.errorbar(
        [one.value for one in losses], rows, xerr=errors, label=label, color=COLOURS[number],
        marker=MARKERS[number], linestyle="", markersize=5, capsize=2,
    )  # fmt: skip


def _across(axes: Any, names: Sequence[str]) -> None:
    """Rows with names, points lost from left to right."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvline(BOUND_POINTS, color="grey", linewidth=0.8, linestyle="--")
    _points_scale(axes, across=True)
    axes.set_xlabel(f"{LOST} (95%)")
    axes.grid(axis="x", alpha=0.3)


def _points_scale(axes: Any, *, across: bool = False) -> None:
    """Linear to a few points, then by powers, with ticks that say what they are."""
    low, high = axes.get_xlim() if across else axes.get_ylim()
    if max(abs(low), abs(high)) <= 4 * LINEAR_TO:
        return
    low = max(low, _least(axes, across=across) - 0.5)  # margins of a hundred are many of one
    ticks = [tick for tick in (-100, -30, -10, -3, 0, 1, 3, 10, 30, 100) if low <= tick <= high]
    scale = axes.set_xscale if across else axes.set_yscale
    scale("symlog", linthresh=LINEAR_TO)
    set_ticks = axes.set_xticks if across else axes.set_yticks
    set_ticks(ticks, [str(tick) for tick in ticks])
    (axes.set_xlim if across else axes.set_ylim)(low, high)


def _least(axes: Any, *, across: bool) -> float:
    """Of all that is drawn, without margins."""
    return float(axes.dataLim.x0 if across else axes.dataLim.y0)


def _label(axes: Any, title: str, below: str, beside: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(below)
    axes.set_ylabel(beside)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
