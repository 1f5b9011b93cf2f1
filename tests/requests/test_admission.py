"""Who is taken while more come than can be answered: pure, so all on paper."""

from __future__ import annotations

import math

import pytest

from service.errors import QueueFull
from service.requests.admission import ALWAYS_WAITING, KEPT_S, MAX_PLACES, Admission

RATE = 4.0  # windows a second
MANY = 1000  # windows that wait: 250 s


def refused(admission: Admission, caller: str, now: float, num_ahead: int = MANY) -> float:
    """Seconds after which the caller is told to come back."""
    with pytest.raises(QueueFull, match=f"{num_ahead} windows are ahead") as full:
        admission.admit(caller, num_ahead, RATE, now)
    return full.value.retry_after_s


def test_taken_while_the_wait_is_short_and_refused_above() -> None:
    admission = Admission(max_wait_s=30)
    admission.admit("a", 120, RATE, 0.0)
    assert refused(admission, "b", 0.0, 121) >= 1


def test_a_device_of_unknown_speed_refuses_nobody() -> None:
    Admission(max_wait_s=1).admit("a", 10**6, math.inf, 0.0)


def test_a_few_may_always_wait_however_slow_the_device_is() -> None:
    admission = Admission(max_wait_s=1)
    admission.admit("a", ALWAYS_WAITING - 1, 0.001, 0.0)
    with pytest.raises(QueueFull):
        admission.admit("a", ALWAYS_WAITING, 0.001, 0.0)


def test_who_comes_back_when_told_to_is_taken_where_a_newcomer_is_not() -> None:
    admission = Admission(max_wait_s=30)
    back_s = refused(admission, "a", 0.0, 200)
    assert refused(admission, "newcomer", back_s, 200)
    admission.admit("a", 200, RATE, back_s)
    assert refused(admission, "a", back_s, 200)  # a place is good for once


def test_who_comes_back_too_early_keeps_its_place() -> None:
    admission = Admission(max_wait_s=30)
    back_s = refused(admission, "a", 0.0, 200)
    assert refused(admission, "a", 0.4, 200) == pytest.approx(back_s - 0.4)
    admission.admit("a", 200, RATE, back_s)


def test_places_are_as_far_apart_as_the_engine_takes_windows() -> None:
    admission = Admission(max_wait_s=30)
    times = [refused(admission, str(i), 0.0) for i in range(9)]
    assert times == pytest.approx([1 + i / RATE for i in range(9)])


def test_requests_of_many_windows_are_farther_apart() -> None:
    admission = Admission(max_wait_s=30)
    for _ in range(200):
        admission.learn_size(3)
    times = [refused(admission, str(i), 0.0) for i in range(9)]
    assert times == pytest.approx([1 + 3 * i / RATE for i in range(9)], rel=0.01)
    for _ in range(400):
        admission.learn_size(0)  # nobody spoke: it was a request all the same
    assert refused(admission, "later", 0.0) == pytest.approx(1 + 9 / RATE, rel=0.01)


def test_places_come_closer_where_few_return() -> None:
    admission = Admission(max_wait_s=30)
    for i in range(20):
        refused(admission, f"gone {i}", 0.0)
    later = 6 + KEPT_S
    times = [refused(admission, str(i), later) for i in range(21)]
    assert times[-1] == pytest.approx(1 + 20 / 21 / RATE, abs=0.2)


def test_a_place_lapses_after_a_while() -> None:
    admission = Admission(max_wait_s=30)
    back_s = refused(admission, "a", 0.0, 200)
    assert refused(admission, "a", back_s + KEPT_S + 0.1, 200)


def test_returning_clients_are_refused_too_where_the_wait_is_twice_too_long() -> None:
    admission = Admission(max_wait_s=30)
    back_s = refused(admission, "a", 0.0)
    again_s = refused(admission, "a", back_s)
    assert again_s >= 1
    admission.admit("a", 240, RATE, back_s + again_s)


def test_room_takes_anybody_and_their_places_with_them() -> None:
    admission = Admission(max_wait_s=30)
    refused(admission, "a", 0.0)
    admission.admit("a", 0, RATE, 0.1)
    assert refused(admission, "b", 0.2) == pytest.approx(1)


def test_the_line_has_an_end() -> None:
    admission = Admission(max_wait_s=30)
    times = [refused(admission, str(i), 0.0) for i in range(MAX_PLACES + 5)]
    assert max(times) == 300
    assert refused(admission, str(MAX_PLACES), 1.0) == 299
    assert refused(admission, "0", 1.0) == 300  # the first place was given up
