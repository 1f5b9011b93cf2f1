from __future__ import annotations

import pytest

from loadtest.accuracy import WordErrors, score, together
from loadtest.outcomes import plain, quantile, summarise

from .made import CLIP, visit


def test_a_step_is_summarised_over_what_was_due() -> None:
    visits = [visit(i / 10, 0.1 * (i + 1)) for i in range(8)]
    visits += [visit(1.0, 0.01, 429), visit(1.0, 60.0, 0, error="TimeoutError")]
    found = summarise(visits, seconds=2.0)
    assert (found.num_requests, found.answered) == (10, 8)
    assert found.statuses == {"200": 8, "429": 1, "TimeoutError": 1}
    assert found.error_share == pytest.approx(0.2)
    assert found.refused_share == pytest.approx(0.1)
    assert (found.p50_s, found.p95_s) == pytest.approx((0.4, 0.8))
    assert found.goodput_rps == pytest.approx(4.0)
    assert found.rtfx == pytest.approx(16.0)
    assert found.offered_rtfx == pytest.approx(20.0)


def test_an_answer_after_the_schedule_is_no_goodput() -> None:
    found = summarise([visit(0.0, 1.0), visit(1.5, 1.0)], seconds=2.0)
    assert found.answered == 2
    assert found.goodput_rps == pytest.approx(0.5)


def test_returns_are_counted_apart_and_as_goodput() -> None:
    refused = [visit(0.0, 0.0, 429, retry_after_s=wait_s) for wait_s in (2.0, 4.0, 3.0, 3.0)]
    back = [
        visit(2.0, 0.5, returned=True),
        visit(2.0, 0.0, 503, returned=True, retry_after_s=3.0),
        visit(2.0, 9.0, 0, error="TimeoutError", returned=True),
    ]
    found = summarise(refused + back, seconds=10.0)
    assert (found.num_requests, found.answered, found.refused_share) == (4, 0, 1.0)
    assert found.goodput_rps == pytest.approx(0.1)
    returns = found.returns
    assert (returns.asked, returns.sent) == (5, 3)
    assert (returns.answered, returns.refused_again, returns.failed) == (1, 1, 1)
    assert returns.accepted_share == pytest.approx(2 / 3)
    assert returns.mean_wait_s == pytest.approx(3.0)


def test_nothing_sent_is_no_error_and_no_figure() -> None:
    found = summarise([], seconds=2.0)
    assert (found.error_share, found.p95_s, found.goodput_rps) == (0.0, None, 0.0)
    assert found.returns.accepted_share is None


def test_lateness_counts_every_send() -> None:
    visits = [visit(late_s=0.001)] * 99 + [visit(late_s=0.5, returned=True)] * 2
    assert summarise(visits, 1.0).late_p99_s == pytest.approx(0.5)


@pytest.mark.parametrize(("q", "value"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.95, 4), (1.0, 4)])
def test_a_quantile_is_one_of_the_values(q: float, value: float) -> None:
    assert quantile([4, 2, 3, 1], q) == value


def test_what_json_cannot_say_is_null() -> None:
    assert plain({"a": [float("nan"), 1 / 3], "b": (1, "x", None)}) == {
        "a": [None, 0.333333],
        "b": [1, "x", None],
    }


def test_words_are_scored_where_they_are_known_and_answered() -> None:
    unknown = type(CLIP)("b", 1.0, None, b"")
    visits = [
        visit(text="Good, day!"),
        visit(text="good night then"),
        visit(text="nothing", recording=unknown),
        visit(status=500),
    ]
    assert score(visits) == WordErrors(2, 4)
    assert together([WordErrors(1, 4), WordErrors(2, 6)]).wer == pytest.approx(0.3)
    assert WordErrors().wer is None
