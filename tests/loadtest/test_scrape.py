from __future__ import annotations

import math
import random

import pytest

from loadtest.scrape import bucket_quantile, fetch, growth, parse
from tests.api.harness import running, voice

BEFORE = """\
# TYPE winnow_queue_windows gauge
winnow_queue_windows 2.0
# TYPE winnow_requests_total counter
winnow_requests_total{endpoint="/transcribe",profile="dense",status="200"} 10.0
winnow_requests_total{endpoint="/transcribe",profile="dense",status="429"} 4.0
# TYPE winnow_real_time_factor histogram
winnow_real_time_factor_bucket{le="0.1",profile="dense"} 2.0
winnow_real_time_factor_bucket{le="1.0",profile="dense"} 2.0
winnow_real_time_factor_bucket{le="+Inf",profile="dense"} 2.0
winnow_real_time_factor_count{profile="dense"} 2.0
winnow_real_time_factor_sum{profile="dense"} 0.1
"""
AFTER = """\
# TYPE winnow_queue_windows gauge
winnow_queue_windows 3.0
# TYPE winnow_requests_total counter
winnow_requests_total{endpoint="/transcribe",profile="dense",status="200"} 25.0
winnow_requests_total{endpoint="/transcribe",profile="dense",status="429"} 1.0
winnow_requests_total{endpoint="/transcribe",profile="fast",status="200"} 5.0
# TYPE winnow_real_time_factor histogram
winnow_real_time_factor_bucket{le="0.1",profile="dense"} 4.0
winnow_real_time_factor_bucket{le="1.0",profile="dense"} 10.0
winnow_real_time_factor_bucket{le="+Inf",profile="dense"} 10.0
winnow_real_time_factor_count{profile="dense"} 10.0
winnow_real_time_factor_sum{profile="dense"} 2.5
# TYPE winnow_model info
winnow_model_info{device="cpu",name="whisper-base"} 1.0
"""


def test_counters_and_histograms_are_differenced_and_gauges_are_not() -> None:
    grown = growth(parse(BEFORE), parse(AFTER))
    assert grown.total("winnow_queue_windows") == 3
    assert grown.total("winnow_requests_total", status="200") == 20
    assert grown.total("winnow_requests_total", profile="dense", status="200") == 15
    assert grown.mean("winnow_real_time_factor", profile="dense") == pytest.approx(2.4 / 8)
    assert grown.quantile("winnow_real_time_factor", 0.5) == pytest.approx(0.1 + 0.9 * 2 / 6)


def test_what_shrank_was_restarted_and_counts_from_nothing() -> None:
    grown = growth(parse(BEFORE), parse(AFTER))
    assert grown.by("winnow_requests_total", "status", profile="dense") == {"200": 15, "429": 1}


def test_what_was_not_observed_is_none() -> None:
    found = parse(AFTER)
    assert found.mean("winnow_real_time_factor", profile="fast") is None
    assert found.quantile("winnow_real_time_factor", 0.5, profile="fast") is None
    assert found.total("winnow_unheard_of") == 0
    assert not found.has("winnow_unheard_of")


def test_labels_of_an_info() -> None:
    assert parse(AFTER).labels("winnow_model_info") == {"device": "cpu", "name": "whisper-base"}


def test_only_some_series_are_read() -> None:
    found = parse(AFTER, only=("winnow_queue_windows",))
    assert {name for name, _ in found.values} == {"winnow_queue_windows"}


def test_a_quantile_is_within_its_bucket() -> None:
    rng = random.Random(0)
    values = sorted(rng.uniform(0, 3) for _ in range(500))
    bounds = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, math.inf]
    counts = {b: float(sum(v <= b for v in values)) for b in bounds}
    for q in (0.1, 0.5, 0.95):
        found = bucket_quantile(counts, q)
        assert found == pytest.approx(values[math.ceil(q * 500) - 1], abs=0.1)


def test_the_last_bucket_has_no_end_and_gives_its_beginning() -> None:
    assert bucket_quantile({1.0: 1.0, math.inf: 10.0}, 0.9) == 1.0
    assert bucket_quantile({1.0: 0.0, math.inf: 0.0}, 0.9) is None
    assert bucket_quantile({}, 0.9) is None


def test_a_servers_own_series_are_read() -> None:
    with running() as server:
        before = fetch(server.url)
        assert server.transcribe(voice(2.0), profile="fast").status_code == 200
        grown = growth(before, fetch(server.url))
    assert grown.total("winnow_requests_total", profile="fast", status="200") == 1
    assert grown.total("winnow_audio_seconds_total", profile="fast") == pytest.approx(2.0)
    assert grown.mean("winnow_stage_seconds", stage="total", profile="fast") is not None
    assert grown.quantile("winnow_real_time_factor", 0.95, profile="fast") is not None
    assert grown.labels("winnow_model_info")["name"] == "fake"
    assert grown.total("process_resident_memory_bytes") > 1e6
