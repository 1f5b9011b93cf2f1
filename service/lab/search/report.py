"""What a search found: for the terminal and as Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from service.lab.report import estimate_to_json, line, table, to_json
from service.lab.search.choose import (
    Choice,
    clearly_faster,
    ratios,
    signed,
    speed,
    upper_points,
)
from service.lab.search.halving import Plan, Standing
from service.lab.search.search import Found, Stage
from service.lab.search.space import Space, choices_of
from service.lab.statistics import Estimate


@dataclass(frozen=True, slots=True)
class Told:
    """What a search was asked, for its reports. `about`: version, command, model and machine;
    `data`: a line for each split."""

    about: Mapping[str, Any]
    data: Mapping[str, str]
    space: Space
    plan: Plan


def name_of(choice: Choice) -> str:
    """The name of a profile in the file that is written."""
    return f"budget-{choice.budget_points:g}"


def choice_said(choice: Choice, found: Found, told: Told) -> Iterator[str]:
    """What was chosen for a budget, and what has to be known of it, in sentences."""
    budget = f"{choice.budget_points:g} {_points(choice.budget_points)}"
    if choice.chosen is None:
        yield f"{budget}: none. {choice.why[0].upper()}{choice.why[1:]}."
        return
    profile, rounds = found.profile(choice.chosen), found.whole_rounds()
    yield (
        f"{budget}: {choice.chosen}, {speed(rounds, choice.chosen):.2f} times dense's speed "
        f"({choice.why} on train). {profile.description}"
    )
    yield confirmed(choice, found, told.plan)
    yield from doubts(choice, found, told.plan)


def doubts(choice: Choice, found: Found, plan: Plan) -> Iterator[str]:
    """What the clock says against a choice by arithmetic."""
    assert choice.chosen is not None
    rounds = found.whole_rounds()
    if speed(rounds, choice.chosen) <= 1:
        yield (
            "It has less to compute than dense, but was measured no faster here: nothing is gained "
            "by serving it on this machine."
        )
    if faster := clearly_faster(choice, found.standings, rounds, plan):
        yield (
            f"{faster} is within the budget too and was faster in every round, "
            f"{speed(rounds, faster):.2f} times dense's speed, although it has no less to compute: "
            "--fastest-by clock goes by that."
        )


def _points(budget: float) -> str:
    return "point" if budget == 1 else "points"


def confirmed(choice: Choice, found: Found, plan: Plan) -> str:
    """Whether a chosen profile keeps to its budget on what nothing was chosen on."""
    assert choice.chosen is not None
    tested = found.tested[choice.chosen]
    holds = upper_points(tested, each=plan.each) <= choice.budget_points
    overall = "Confirmed" if holds else "NOT confirmed"
    said = f"{overall} on the test split: {interval(tested.difference)} points."
    outside = [
        f"{domain} ({interval(one)})"
        for domain, one in tested.by_domain.items()
        if 100 * one.high > choice.budget_points
    ]
    if outside and len(tested.by_domain) > 1:
        said += f" By itself it is not shown of {', '.join(outside)}."
    return said


def interval(one: Estimate) -> str:
    """In percentage points."""
    value, low, high = (100 * end for end in (one.value, one.low, one.high))
    return signed(f"{value:+.2f} ({low:+.2f} to {high:+.2f})")


def standings_table(standings: Sequence[Standing], rounds: Sequence[Mapping[str, float]]) -> str:
    """Markdown: candidates on what was chosen on, the least work first."""
    columns = ["candidate", "WER against dense (95%)", "arithmetic"]
    columns += ["times dense's speed (min to max)"] * bool(rounds)
    lines = [line(columns), line(["---"] * len(columns))]
    for one in sorted(standings, key=lambda one: (one.work, one.profile.name)):
        cells = [one.profile.name, interval(one.difference), f"{100 * one.work:.0f}%"]
        if rounds:
            each = ratios(rounds, one.profile.name)
            middle = speed(rounds, one.profile.name)
            cells.append(f"{middle:.2f} ({min(each):.2f} to {max(each):.2f})")
        lines.append(line(cells))
    return "\n".join(lines)


def place_said(machine: Mapping[str, Any]) -> str:
    """What computed: the GPU, or the processor with as many threads as were used."""
    threads = machine["threads"]
    cpu = f"{machine['cpu']}, {threads} thread{'s' if threads != 1 else ''}"
    return str(machine.get("gpu") or cpu)


def terminal(found: Found, told: Told) -> str:
    parts = [f"On {told.data['train']}:"]
    parts.append(standings_table(found.standings, found.whole_rounds()))
    if found.reported:
        parts += [f"On {told.data['test']}:", table(found.reported)]
    said = ("\n  ".join(choice_said(choice, found, told)) for choice in found.choices)
    return "\n\n".join([*parts, "\n".join(said)])


def markdown(found: Found, told: Told) -> str:
    about, plan = told.about, told.plan
    model, machine = about["model"], about["machine"]
    where = place_said(machine)
    rule = "in each domain" if plan.each else "over all domains"
    fastest = "was measured fastest" if plan.by_clock else "has the least to compute"
    parts = [
        f"# Profiles for {model['name']}",
        f"{about['date'][:10]}, Winnow {about['winnow']} ({about['commit'] or 'no checkout'}): "
        f"`{about['command']}`. {model['name']}, {model['parameters']:,} parameters, weights in "
        f"{model['weight_dtype']}, on {where}.",
        f"Chosen on {told.data['train']}. Reported on {told.data['test']}.",
        "Of the profiles whose word error rate is shown to be no more than the budget above "
        f"dense's {rule} (upper end of the paired 95% interval), the one that {fastest}.",
        "## The choices",
        "\n".join(f"- {' '.join(choice_said(one, found, told))}" for one in found.choices),
    ]
    if found.reported:
        parts += ["## On the test split", "Nothing was chosen on it.", table(found.reported)]
    parts += [
        "## Those that were left",
        f"On all that was chosen on. Speed: in turns with dense, {len(found.rounds)} times over. "
        "Arithmetic: multiplications and additions, attempts after the first among them, as a "
        "share of dense's.",
        standings_table(found.standings, found.whole_rounds()),
        "## How they were found",
        f"{len(told.space.candidates)} candidates; {told.space.refused} combinations make no "
        f"profile of this model, {told.space.repeated} do what another does. From rung to rung "
        "went those that no other beats in both errors and arithmetic, then those that only "
        "these beat, and so on; whoever was surely beyond the largest budget went out. "
        f"Seed {plan.seed}.",
        *(part for stage in found.stages for part in _stage(stage)),
    ]
    return "\n\n".join(parts) + "\n"


def _stage(stage: Stage) -> tuple[str, str]:
    head = f"### {stage.name[0].upper()}{stage.name[1:]} of each domain ({stage.num_items})"
    on = [one for one in stage.standings if one.profile.name in stage.on]
    out = [one for one in stage.standings if one.profile.name not in stage.on]
    said = f"{len(on)} of {len(stage.standings)} went on."
    rows = standings_table(on, []) + "".join(
        "\n" + row for row in standings_table(out, []).splitlines()[2:]
    )
    return f"{head}\n\n{said}", rows


def everything(found: Found, told: Told) -> dict[str, Any]:
    """Recordings' errors on the test split among it, so that intervals can be worked out again."""
    whole_rounds = found.whole_rounds()
    against = {
        one.profile.name: [round(ratio, 4) for ratio in ratios(whole_rounds, one.profile.name)]
        for one in found.standings
    }
    return {
        **to_json(found.reported, told.about),
        "data": dict(told.data),
        "plan": asdict(told.plan),
        "space": {
            "candidates": {p.name: choices_of(p) for p in told.space.candidates},
            "refused": told.space.refused,
            "repeated": told.space.repeated,
        },
        "words": dict(found.words),
        "stages": [
            {
                "name": stage.name,
                "items": stage.num_items,
                "on": list(stage.on),
                "standings": [_standing(one) for one in stage.standings],
            }
            for stage in found.stages
        ],
        "speed": {
            "seconds": [dict(one) for one in found.rounds],
            "against_dense": against,
        },
        "choices": [
            asdict(choice) | {"tested": choice.chosen and _standing(found.tested[choice.chosen])}
            for choice in found.choices
        ],
    }


def _standing(one: Standing) -> dict[str, Any]:
    return {
        "candidate": one.profile.name,
        "difference": estimate_to_json(one.difference),
        "by_domain": {name: estimate_to_json(each) for name, each in one.by_domain.items()},
        "work": round(one.work, 6),
    }
