from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.accuracy import WordErrors
from loadtest.results import OVERLOAD, SEARCH, SOAK, StepResult
from loadtest.thresholds import Limits, problems

from .made import result

ANY = Limits(p95_s=None, max_errors=1.0, max_wer=None, min_rate=None, min_rtfx=None)


@pytest.mark.parametrize(
    ("limits", "step", "problem"),
    [
        (ANY, result(refused=5), None),
        (replace(ANY, p95_s=0.5), result(), None),
        (replace(ANY, p95_s=0.4), result(), "dense at 2.00/s: p95 0.50 s, at most 0.4 s"),
        (replace(ANY, p95_s=9), result(latencies_s=(), refused=1), "no answer, at most 9 s"),
        (replace(ANY, max_errors=0.2), result(refused=5), None),
        (replace(ANY, max_errors=0.1), result(refused=5), "errors 20.0%, at most 10.0%"),
        (replace(ANY, min_rtfx=8), result(), None),
        (replace(ANY, min_rtfx=9), result(), "RTFx 8.0, at least 9"),
        (replace(ANY, p95_s=0.1), result(kind=OVERLOAD), None),
        (replace(ANY, p95_s=0.1), result(kind=SEARCH, held=False), None),
        (replace(ANY, p95_s=0.1), result(interrupted=True), None),
        (replace(ANY, p95_s=0.1), result(kind=SOAK), "p95 0.50 s"),
    ],
)
def test_a_step_past_a_limit_is_a_problem(
    limits: Limits, step: StepResult, problem: str | None
) -> None:
    found = problems([step], {}, {}, limits)
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1
        assert problem in found[0]


def test_maxima_and_words_are_judged_over_the_run() -> None:
    limits = replace(ANY, max_wer=0.25, min_rate=2.0)
    words = {"dense": WordErrors(1, 4), "fast": WordErrors(2, 4), "own": WordErrors()}
    found = problems([], {"dense": 2.0, "fast": 1.5, "own": None}, words, limits)
    assert found == [
        "fast: maximum 1.50 requests/s, at least 2",
        "own: no rate held",
        "fast: WER 50.0%, at most 25.0%",
    ]


def test_of_a_search_the_maximum_alone_is_judged() -> None:
    steps = [result(rate=rate, kind=SEARCH) for rate in (1.0, 2.0)]
    assert problems(steps, {"dense": 2.0}, {}, replace(ANY, min_rtfx=9)) == [
        "dense at 2.00/s: RTFx 8.0, at least 9"
    ]
