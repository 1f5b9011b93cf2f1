from __future__ import annotations

import math

import pytest

from service.engine.meter import (
    GUESSED_WINDOWS_PER_S,
    LEAST_RETRY_S,
    MOST_RETRY_S,
    RECENT_S,
    Meter,
)


def test_retry_after_comes_from_measured_throughput() -> None:
    meter = Meter()
    meter.work(0.0)
    for second in range(10):
        meter.finished(2, now=100.0 + second)
    assert meter.rate(110.0) == pytest.approx(2.0)
    assert meter.retry_after_s(20, now=110.0) == pytest.approx(10.0)
    assert meter.retry_after_s(40, now=110.0) == pytest.approx(20.0)


def test_idle_time_is_not_counted() -> None:
    meter = Meter()
    meter.work(0.0)
    meter.finished(1, now=10.0)
    meter.rest(now=10.0)
    meter.work(now=60.0)
    meter.work(now=61.0)  # it does not begin twice
    assert meter.retry_after_s(20, now=62.0) == pytest.approx(40.0)


def test_what_rests_goes_on_resting() -> None:
    meter = Meter()
    meter.finished(1, now=8.0)
    meter.rest(now=10.0)
    meter.rest(now=50.0)
    assert meter.rate(100.0) == pytest.approx(0.5)


def test_without_recent_throughput_it_is_a_guess_within_bounds() -> None:
    meter = Meter()
    meter.work(0.0)
    meter.finished(500, now=0.0)
    later = RECENT_S + 1
    assert math.isinf(meter.rate(later))
    assert meter.retry_after_s(20, now=later) == pytest.approx(20 / GUESSED_WINDOWS_PER_S)
    assert meter.retry_after_s(1000, now=later) == MOST_RETRY_S
    meter.finished(200, now=later)
    assert meter.retry_after_s(1, now=later + 1) == LEAST_RETRY_S
