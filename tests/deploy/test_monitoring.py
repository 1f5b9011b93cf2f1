"""Dashboard and alerts ask for series that exist, with labels that they have."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.metrics import MetricWrapperBase

from deploy.check_dashboard import filled_in, queries
from service.metrics import Metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
GRAFANA = DEPLOY / "grafana"
FROM_PROMETHEUS = {"job", "instance"}  # labels that every scraped series gets
SUFFIXES: dict[str | None, dict[str, tuple[str, ...]]] = {
    "counter": {"_total": ()},
    "histogram": {"_bucket": ("le",), "_sum": (), "_count": ()},
    "gauge": {"": ()},
}


def _labels_by_series() -> dict[str, set[str]]:
    metrics = Metrics()
    series: dict[str, set[str]] = {
        "up": set(),
        "winnow_model_info": {"model", "name", "device", "dtype", "weight_dtype"},
    }
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            for suffix, more in SUFFIXES.get(metric._type, {}).items():
                series[metric._name + suffix] = {*metric._labelnames, *more}
    for family in metrics.registry.collect():
        series |= {s.name: set() for s in family.samples if s.name.startswith("process_")}
    return series


SERIES = _labels_by_series()


def _alerts() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def _asked(query: str) -> Iterator[tuple[str, set[str]]]:
    """Each series that a query names, with the labels it selects by."""
    for name, selector in re.findall(r"\b(up|(?:winnow|process)_\w+)(?:\{([^}]*)\})?", query):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))


def _wrong(query: str) -> list[str]:
    """What is asked for and is not there."""
    wrong, known = [], set(FROM_PROMETHEUS)
    for name, labels in _asked(query):
        if name not in SERIES:
            wrong.append(f"there is no series {name}")
            continue
        known |= SERIES[name]
        wrong += [f"{name} has no label {x}" for x in labels - SERIES[name] - FROM_PROMETHEUS]
    grouped = re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", query)
    by = {label.strip() for labels in grouped for label in labels.split(",")}
    return wrong + [f"nothing has the label {label}" for label in by - known]


@pytest.mark.parametrize(("title", "query"), [*queries(), *_alerts()])
def test_a_query_asks_for_what_the_service_counts(title: str, query: str) -> None:
    assert list(_asked(query)), f"{title}: no series in {query}"
    assert not _wrong(query), f"{title}: {query}"


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("rate(winnow_requests[5m])", "there is no series winnow_requests"),
        ('winnow_queue_windows{profile="fast"}', "winnow_queue_windows has no label profile"),
        ("sum by (stage) (winnow_frames_total)", "nothing has the label stage"),
    ],
)
def test_the_check_finds_what_is_wrong(query: str, wrong: str) -> None:
    assert _wrong(query) == [wrong]


def test_the_dashboard_covers_what_the_service_counts() -> None:
    asked = {name for _, query in queries() for name, _ in _asked(query)}
    families = {re.sub(r"_(total|bucket|sum|count|info)$", "", name) for name in asked}
    counted = {re.sub(r"_(total|bucket|sum|count|info)$", "", name) for name in SERIES}
    assert {name for name in counted if name.startswith("winnow_")} <= families


def test_variables_are_those_that_the_check_fills_in() -> None:
    assert not [query for _, query in queries() if "$" in filled_in(query)]


def test_grafana_asks_the_prometheus_that_compose_starts() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())
    [source] = sources["datasources"]
    assert source["url"] == "http://prometheus:9090"
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    dashboard = (GRAFANA / "dashboards/winnow.json").read_text()
    assert set(re.findall(r'"uid": "(.*?)"', dashboard)) == {source["uid"], "winnow"}


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for fires in (True, False):
        tested = {case["alertname"] for case in cases if bool(case.get("exp_alerts")) is fires}
        assert tested == {name for name, _ in _alerts()}


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool_accepts_it(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
