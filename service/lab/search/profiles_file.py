"""The chosen profiles as the TOML file that `winnow serve --profiles-file` takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from service.lab.outcomes import Figures
from service.lab.search.choose import DENSE, Choice, speed
from service.lab.search.report import (
    Told,
    choice_said,
    confirmed,
    doubts,
    interval,
    name_of,
    place_said,
)
from service.lab.search.search import Found
from service.lab.search.space import choices_of


def to_toml(found: Found, told: Told) -> str:
    """A table for each budget that somebody keeps to, with what was measured of it on the test
    split, by domain; a comment for each that nobody does. Speed is that on the same domain's
    recordings of the train split."""
    model = told.about["model"]
    head = [
        f"Found by winnow search on {told.about['date'][:10]} for {model['name']}, "
        f"{model['parameters']:,} parameters, weights in {model['weight_dtype']}.",
        "For each budget, in points of word error rate above dense's, the fastest profile that is",
        "shown to keep to it (95%). Whoever changes a profile has to take out its evidence.",
        f"Chosen on {told.data['train']}.",
        f"Reported on {told.data['test']}.",
        f"Machine: {_machine(told)}",
        told.about["command"],
        *_without(found, told),
    ]
    lines = [*_comments(head), ""]
    for choice in found.choices:
        if choice.chosen is not None:
            lines += [*_table(choice, choice.chosen, found, told), ""]
    return "\n".join(lines).rstrip() + "\n"


def _without(found: Found, told: Told) -> Iterator[str]:
    """The budgets that nobody keeps to."""
    for choice in found.choices:
        if choice.chosen is None:
            yield from choice_said(choice, found, told)


def _comments(lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield f"# {line}".rstrip()


def _table(choice: Choice, chosen: str, found: Found, told: Told) -> Iterator[str]:
    name = json.dumps(name_of(choice))
    one = next(one for one in found.standings if one.profile.name == chosen)
    yield f"[{name}]"
    yield from _comments(
        [
            f"{chosen}: {interval(one.difference)} points on train.",
            confirmed(choice, found, told.plan),
            *doubts(choice, found, told.plan),
        ]
    )
    # The layer is said where it matters, if it is the default one too.
    layer = {"layer": one.profile.layer} if one.profile.sparsity else {}
    for field, value in {**layer, **choices_of(one.profile)}.items():
        yield f"{field} = {_value(value)}"
    for result in found.reported:
        figures = {figures.profile: figures for figures in result.figures}
        dense, ours = figures[DENSE], figures[chosen]
        if dense.errors.words:
            yield ""
            yield f"[[{name}.evidence]]"
            measured = speed(found.whole_rounds(result.domain), chosen)
            for field, value in _evidence(result.domain, dense, ours, measured, told).items():
                yield f"{field} = {_value(value)}"


def _evidence(
    domain: str, dense: Figures, ours: Figures, measured: float, told: Told
) -> dict[str, Any]:
    """The fields of `service.evidence.Evidence`, and the model."""
    assert ours.difference is not None
    return {
        "model": told.about["model"]["name"],
        "data": f"{domain}, test split",
        "windows": ours.num_windows,
        "wer_percent": round(100 * ours.wer.value, 3),
        "dense_wer_percent": round(100 * dense.wer.value, 3),
        "low_points": round(100 * ours.difference.low, 3),
        "high_points": round(100 * ours.difference.high, 3),
        "speed": round(measured, 3),
        "machine": _machine(told),
        "command": told.about["command"],
        "date": Date(told.about["date"][:10]),
    }


class Date(str):
    """A date, which TOML writes without quotes."""

    __slots__ = ()


def _machine(told: Told) -> str:
    return f"{place_said(told.about['machine'])}, {told.about['model']['weight_dtype']}"


def _value(value: Any) -> str:
    if isinstance(value, Date):
        return str(value)
    # A basic string of TOML is one of JSON, but for this character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
