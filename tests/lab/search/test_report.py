"""What is said of choices, over answers that are made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from service.lab.search.bench import Seconds
from service.lab.search.halving import Plan
from service.lab.search.progress import duration
from service.lab.search.report import Told, choice_said, everything, markdown, terminal
from service.lab.search.search import Found, search
from service.lab.search.trials import Place, Trial
from service.profiles import Profile
from tests.lab.search.test_search import EXTRA, PLAN, SPACE, TEST, TRAIN, MadeUp, Seen

ABOUT = {
    "winnow": "1",
    "commit": None,
    "date": "2026-11-26T21:00:00+00:00",
    "command": "winnow search",
    "model": {"name": "small", "parameters": 1234, "weight_dtype": "int8"},
    "machine": {"cpu": "a processor", "threads": 2},
}


class Worse(MadeUp):
    """In the domain `told` of the test split a profile makes four errors more."""

    def trials(self, profile: Profile, some: Sequence[Place], stage: str) -> list[Trial]:
        trials = super().trials(profile, some, stage)
        if profile.name not in EXTRA:
            return trials
        hard = [place.split == "test" and place.domain == "told" for place in some]
        return [_with(trial, 4 * one) for trial, one in zip(trials, hard, strict=True)]


def _with(trial: Trial, more: int) -> Trial:
    errors = replace(trial.outcome.errors, insertions=more)
    return replace(trial, outcome=replace(trial.outcome, errors=errors))


class Slow(MadeUp):
    """c1 takes as long as dense."""

    def rounds(
        self, profiles: Sequence[Profile], some: Sequence[Place], num_rounds: int
    ) -> list[dict[str, Seconds]]:
        every = super().rounds(profiles, some, num_rounds)
        return [
            {domain: seconds | {"c1": seconds["dense"]} for domain, seconds in one.items()}
            for one in every
        ]


def made(bench: MadeUp, plan: Plan = PLAN) -> tuple[Found, Told]:
    found = search(SPACE, TRAIN, TEST, plan, bench, Seen())
    return found, Told(ABOUT, {"train": "the train split", "test": "the test split"}, SPACE, plan)


def said(bench: MadeUp, plan: Plan = PLAN) -> list[str]:
    found, told = made(bench, plan)
    return [" ".join(choice_said(choice, found, told)) for choice in found.choices]


def test_a_choice_says_what_it_is_and_whether_it_holds() -> None:
    none, one, three = said(MadeUp(EXTRA))
    assert none.startswith("0.5 points: none. None of the 2 that were tried")
    assert one.startswith("1 point: c1, 1.11 times dense's speed (+1.00 points, at most +1.00 on")
    assert "Confirmed on the test split: +1.00 (+1.00 to +1.00) points." in one
    assert three.startswith("3 points: c2, 1.25 times dense's speed")
    assert "no faster" not in one + three


def test_what_does_not_hold_on_the_test_split_is_said_with_the_domain() -> None:
    _, one, three = said(Worse(EXTRA))
    assert "NOT confirmed on the test split: +2.00 (" in one
    assert "By itself it is not shown of told (+5.00 (+5.00 to +5.00))." in one
    assert "NOT confirmed on the test split: +3.00 (" in three


def test_what_the_clock_says_against_a_choice_is_said() -> None:
    _, one, _ = said(Slow(EXTRA))
    assert "was measured no faster here" in one
    by_clock = said(Slow(EXTRA), replace(PLAN, by_clock=True))
    assert by_clock[1].startswith(
        "1 point: none. No faster than dense, although within the budget: c1"
    )


def test_reports_of_a_search_that_found_nobody() -> None:
    found, told = made(MadeUp(dict.fromkeys(EXTRA, 40)))
    text = markdown(found, told)
    assert text.count("none. Every candidate is too far from dense") == 3
    assert "## On the test split" not in text
    assert terminal(found, told).count("none. Every candidate") == 3
    whole = everything(found, told)
    assert whole["domains"] == []
    assert len(whole["stages"][0]["standings"]) == 6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.4, "4 s"), (80, "80 s"), (110, "2 min"), (3600, "1 h 0 min"), (9000, "2 h 30 min")],
)
def test_how_long_it_takes(seconds: float, text: str) -> None:
    assert duration(seconds) == text
