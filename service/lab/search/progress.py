"""What a person sees while a search goes on: a bar, how long it will take, who goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tqdm import tqdm

from service.lab.search.choose import signed
from service.lab.search.halving import Standing
from service.lab.search.search import Stage


class Progress:
    """On standard error. `pace_s` tells how many seconds a recording takes dense, once that is
    known. To be entered."""

    def __init__(self, pace_s: Callable[[], float | None]) -> None:
        self._pace_s = pace_s
        self._told = False
        self._bar: tqdm | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def done(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def begins(self, what: str, num_left: int) -> None:
        if self._bar is None:
            self._bar = tqdm(
                desc=what,
                total=num_left,
                unit="answer",
                leave=False,
                disable=None,
                dynamic_ncols=True,
            )
        self._bar.total = self._bar.n + num_left
        self._bar.set_description(what)
        pace_s = self._pace_s()
        if pace_s is None or self._told:
            return
        self._told = True
        self._say(
            f"{num_left:,} answers to go: at most {duration(num_left * pace_s)} at dense's pace, "
            f"{pace_s:.2g} s a recording"
        )

    def ended(self, stage: Stage) -> None:
        leaders = [one for one in stage.standings if one.profile.name in stage.on]
        line = (
            f"{stage.name} ({stage.num_items}): {len(stage.standings)} tried, {len(stage.on)} go on"
        )
        if leaders:
            least = min(leaders, key=lambda one: one.work)
            right = min(leaders, key=lambda one: one.difference.value)
            line += f"; fewest errors: {_said(right)}"
            line += f"; least work: {_said(least)}" if least is not right else ", and least work"
        self._say(line)

    def _say(self, line: str) -> None:
        tqdm.write(line, file=sys.stderr)


def _said(one: Standing) -> str:
    points = signed(f"{100 * one.difference.value:+.1f}")
    return f"{one.profile.name} ({points} points, {100 * one.work:.0f}% of dense's arithmetic)"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{minutes} min"
