"""Word error rate against speed, every profile, and the frontier: what `winnow plot` draws.

Reads what `winnow evaluate --speed N --out` and `winnow search` write.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import ConfigError
from service.lab.drawing import COLOURS, MARKERS, new_figure
from service.lab.statistics import Estimate
from service.profiles import BUILT_IN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

DENSE = "dense"
REAL_TIME, OF_DENSE = "times real time", "times dense's speed"


@dataclass(frozen=True, slots=True)
class Point:
    """A profile of a model on a domain. `wer` in per cent, with dense's plus the ends of the paired
    95% interval of the difference; `speeds`: the median, the least and the most of the rounds, by
    what they are in."""

    model: str
    profile: str
    wer: Estimate
    speeds: Mapping[str, Estimate]


def read(path: Path, domain: str | None = None) -> tuple[str, list[Point]]:
    """The domain, and its points: the named one, or the first that was timed.

    Raises ConfigError for what is no report, and where nothing in it was timed.
    """
    try:
        report = json.loads(path.read_text())
        domains = {one["domain"]: one["profiles"] for one in report["domains"]}
        model = report["model"]["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not what winnow evaluate --out or winnow search writes ({error!r})"
        ) from None
    if domain is not None and domain not in domains:
        raise ConfigError(f"{path}: no domain {domain!r}; it has {', '.join(domains)}")
    for name, profiles in domains.items():
        points = _points(model, profiles, report.get("speed") or {})
        if points and domain in (None, name):
            return name, points
    raise ConfigError(f"{path}: nothing in it was timed; use winnow evaluate --speed 3")


def _points(model: str, profiles: Mapping[str, Any], searched: Mapping[str, Any]) -> list[Point]:
    """Those of profiles with words and times. `searched`: what a search timed, by profile."""
    dense = profiles[DENSE]["wer"]["value"]
    points = []
    for name, found in profiles.items():
        speeds = _speeds(found, searched.get("against_dense", {}).get(name))
        if dense is not None and speeds:
            more = found["difference"] or {"value": 0.0, "low": 0.0, "high": 0.0}
            ends = (100 * (dense + more[end]) for end in ("value", "low", "high"))
            points.append(Point(model, name, Estimate(*ends), speeds))
    return points


def _speeds(found: Mapping[str, Any], searched: Sequence[float] | None) -> dict[str, Estimate]:
    if "speed" in found:
        return {
            REAL_TIME: _spread(found["speed"]["rounds"]),
            OF_DENSE: _spread(found["speed"]["against_dense"]),
        }
    return {OF_DENSE: _spread(searched)} if searched else {}


def _spread(values: Sequence[float]) -> Estimate:
    return Estimate(statistics.median(values), min(values), max(values))


def axis_of(points: Sequence[Point]) -> str:
    """What all of them were timed in: times real time where that is known of each."""
    return REAL_TIME if all(REAL_TIME in point.speeds for point in points) else OF_DENSE


def frontier(points: Sequence[Point], axis: str) -> list[Point]:
    """Those than which none is as fast and loses fewer words, or as accurate and faster; from the
    slowest on."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.speeds[axis].value, p.wer.value)):
        if not best or point.wer.value < best[-1].wer.value:
            best.append(point)
    return best[::-1]


def picture(title: str, points: Sequence[Point]) -> Figure:
    """800 pixels wide: a colour and a frontier for each model. Named are the frontier and the
    built-in profiles; other variants are small."""
    axis = axis_of(points)
    figure = new_figure(8, 5)
    axes = figure.subplots()
    models = list(dict.fromkeys(point.model for point in points))
    named: list[tuple[Point, str]] = []
    for number, model in enumerate(models):
        own = [point for point in points if point.model == model]
        colour = COLOURS[number % len(COLOURS)]
        best = frontier(own, axis)
        axes.plot(
            [point.speeds[axis].value for point in best],
            [point.wer.value for point in best],
            color=colour, linewidth=1.2, alpha=0.6, label=f"{model}, frontier",
        )  # fmt: skip
        for point in own:
            is_named = point in best or point.profile in BUILT_IN
            _mark(axes, point, axis, colour, MARKERS[number % len(MARKERS)], small=not is_named)
            named += [(point, colour)] if is_named else []
    axes.margins(x=0.1, y=0.2)
    axes.set_xlabel(f"{axis} (range of rounds)")
    axes.set_ylabel("word error rate, % (paired 95% interval against dense)")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")
    figure.draw_without_rendering()  # places are known from then on
    _name(axes, named, points, axis)
    return figure


def _mark(axes: Axes, point: Point, axis: str, colour: str, marker: str, *, small: bool) -> None:
    speed, wer = point.speeds[axis], point.wer
    axes.errorbar(
        [speed.value], [wer.value],
        xerr=[[speed.value - speed.low], [speed.high - speed.value]],
        yerr=[[wer.value - wer.low], [wer.high - wer.value]],
        marker=marker, color=colour, markersize=3 if small else 6, elinewidth=0.8,
        capsize=0 if small else 2, alpha=0.4 if small else 1, linestyle="",
    )  # fmt: skip


def _name(
    axes: Axes, named: Sequence[tuple[Point, str]], points: Sequence[Point], axis: str
) -> None:
    """Each name where it lies on no mark and no other name, as near to its own as can be."""
    taken = [box for point in points for box in _marks(axes, point, axis)]
    legend = axes.get_legend()
    if legend is not None:
        taken.append(legend.get_window_extent())
    for point, colour in named:
        at = (point.speeds[axis].value, point.wer.value)
        label = axes.annotate(
            point.profile, at, xytext=(0, 0), textcoords="offset points", fontsize=8, color=colour
        )
        best = (math.inf, _OFFSETS[0])
        for offset in _OFFSETS:
            box = _moved(label, offset).padded(1)
            inside = axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
            lies_on = sum(map(box.overlaps, taken)) + 100 * (not inside)
            if lies_on < best[0]:
                best = (lies_on, offset)
            if best[0] == 0:
                break
        taken.append(_moved(label, best[1]).padded(1))
        if max(map(abs, best[1])) > _NEAR:
            line = {"arrowstyle": "-", "color": colour, "linewidth": 0.5}
            axes.annotate("", at, xytext=best[1], textcoords="offset points", arrowprops=line)


def _moved(label: Annotation, offset: tuple[float, float]) -> Bbox:
    """Puts it there, and says which pixels it then takes."""
    label.set_position(offset)
    label.set_horizontalalignment("left" if offset[0] >= 0 else "right")
    return label.get_window_extent()


_NEAR = 12  # points, within which it is seen whose name it is
# From a mark to its name, in points: near ones first.
_OFFSETS = tuple(
    (side * across, up)
    for across in (8, 20, 40, 70)
    for up in (6, -12, 20, -26, 40, -46, 60, -66)
    for side in (1, -1)
)


def _marks(axes: Axes, point: Point, axis: str) -> list[Bbox]:
    """The pixels of a mark and of its two intervals."""
    from matplotlib.transforms import Bbox

    speed, wer = point.speeds[axis], point.wer
    ends = [(speed.value, wer.value), (speed.low, wer.low), (speed.high, wer.high)]
    (x, y), (left, below), (right, above) = axes.transData.transform(ends)
    return [
        Bbox.from_extents(x - 6, y - 6, x + 6, y + 6),
        Bbox.from_extents(left, y - 1, right, y + 1),
        Bbox.from_extents(x - 1, below, x + 1, above),
    ]
