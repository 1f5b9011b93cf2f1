"""The routes that operators look at: ready, profiles, page, description, metrics."""

from __future__ import annotations

import html
import os
import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import profiles as profiles_module
from service.api.app import create_app
from service.api.services import Services
from service.config import ServerConfig
from service.errors import ConfigError
from service.families.fake import FakeModel
from service.profiles import BUILT_IN
from service.types import SAMPLE_RATE
from tests.harness import num_decoded

from .conftest import StartServer
from .harness import Running, voice, wav


def test_ready_and_what_it_offers(shared: Running) -> None:
    assert shared.client.get("/healthz").json() == {"status": "ok"}
    assert shared.client.get("/readyz").json() == {"status": "ready"}
    profiles = shared.client.get("/profiles").json()["profiles"]
    assert [p["name"] for p in profiles] == list(BUILT_IN)
    assert [p["name"] for p in profiles if p["default"]] == ["dense"]
    published = profiles[5]
    # What was measured of it has a test of its own.
    assert published | {"measured": "", "evidence": None} == {
        "name": "eas-published",
        "layer": 2,
        "sparsity": 0.5,
        "aggregation": "mean",
        "selection": "attention",
        "within": 0,
        "pool": "drop",
        "late": 0.0,
        "padding": 0,
        "reach": 0,
        "low_rank": "",
        "bits": 0,
        "gates": 0.0,
        "default": False,
        "description": BUILT_IN["eas-published"].description,
        "measured": "",
        "evidence": None,
    }


MEASURED = """
[balanced]
layer = 2
sparsity = 0.25
pool = "mean"
[[balanced.evidence]]
data = "LibriSpeech, packed"
windows = 71
wer_percent = 7.5
dense_wer_percent = 7.7
low_points = -0.9
high_points = 0.5
speed = 1.6
machine = "2 cores"
command = "winnow evaluate"
date = 2026-11-26
"""


def test_what_was_measured_of_a_profile_is_shown_where_people_choose(
    server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whisper-base.toml").write_text(MEASURED)
    monkeypatch.setattr(profiles_module, "SHIPPED", tmp_path)
    one = server(model="openai/whisper-base", default_profile="balanced")
    profiles = {p["name"]: p for p in one.client.get("/profiles").json()["profiles"]}
    said = (
        "WER 7.5% against 7.7% dense (difference −0.2, 95% −0.9 to +0.5) "  # noqa: RUF001
        "on 71 windows of LibriSpeech, packed; 1.6 times dense's speed."
    )
    assert profiles["balanced"]["measured"] == said
    assert profiles["balanced"]["evidence"] == [
        {
            "data": "LibriSpeech, packed",
            "windows": 71,
            "wer_percent": 7.5,
            "dense_wer_percent": 7.7,
            "difference_points": -0.2,
            "low_points": -0.9,
            "high_points": 0.5,
            "speed": 1.6,
            "meant_points": None,
            "meant_speed": None,
            "machine": "2 cores",
            "command": "winnow evaluate",
            "date": "2026-11-26",
        }
    ]
    assert profiles["fast"]["evidence"] is None
    page = html.unescape(one.client.get("/").text)
    assert f'<p id="about" aria-live="polite">{profiles["balanced"]["description"]} {said}' in page
    assert f'{BUILT_IN["fast"].description} Not measured on this model."' in page
    answer = one.transcribe(voice(1)).json()
    assert answer["frames"] == {"total": 1500, "kept": 1125}  # what runs is what was measured


def test_the_index_page_needs_nothing_from_elsewhere(shared: Running) -> None:
    page = shared.client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert 'action="transcribe"' in page.text
    for name in BUILT_IN:
        assert f'<option value="{name}" data-about="' in page.text
    assert re.findall(r'<option value="(\w+)"[^>]* selected>', page.text) == ["dense"]
    assert "$$" not in page.text
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page.text)
    links = re.findall(r'href="([^":]*)"', page.text)
    assert links == ["profiles", "v1/models", "openapi.json", "readyz", "metrics"]
    for link in links:
        assert shared.client.get(f"/{link}").status_code == 200


def test_the_openapi_description_knows_the_parameters(shared: Running) -> None:
    paths = shared.client.get("/openapi.json").json()["paths"]
    form = paths["/transcribe"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert {"file", "profile", "timeout"} <= set(form["schema"]["properties"])
    assert "/v1/audio/transcriptions" in paths


def test_series_are_counted_by_route_and_configured_profile(server: StartServer) -> None:
    one = server()
    one.transcribe(voice(1), profile="fast")
    one.transcribe(voice(1), profile="made-up")
    one.client.get("/made-up/path")
    text = one.client.get("/metrics").text
    sample = 'winnow_requests_total{endpoint="%s",model="%s",profile="%s",status="%d"} 1.0'
    assert sample % ("/transcribe", "fake", "fast", 200) in text
    assert sample % ("/transcribe", "fake", "", 400) in text
    assert sample % ("other", "", "", 404) in text
    of_fast = '{endpoint="/transcribe",model="fake",profile="fast"}'
    assert f"winnow_request_seconds_count{of_fast} 1.0" in text
    assert 'winnow_ready{model="fake"} 1.0' in text
    assert "made-up" not in text


def test_series_of_the_work_itself(server: StartServer) -> None:
    one = server()
    tone = wav(0.3 * np.sin(2 * np.pi * 300 * np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE))
    # One word over and over: a repetition to the guard, which has it decoded again and again.
    asked = {"vad": "false", "no_speech_threshold": "1", "temperature": "0,1"}
    answer = one.transcribe(tone, profile="fast", **asked).json()
    assert [fallback["reason"] for fallback in answer["fallbacks"]] == ["repetition"] * 2
    series = {
        (sample.name, *(v for k, v in sample.labels.items() if k != "model")): sample.value
        for family in text_string_to_metric_families(one.client.get("/metrics").text)
        for sample in family.samples
    }
    for stage in ("decode_audio", "queue", "mel", "encode", "decode", "total"):
        assert series["winnow_stage_seconds_count", "fast", stage] == 1
        assert series["winnow_stage_seconds_sum", "fast", stage] > 0
    assert series["winnow_real_time_factor_count", "fast"] == 1
    assert series["winnow_real_time_factor_sum", "fast"] > 0
    assert series["winnow_audio_seconds_total", "fast"] == 20
    assert series["winnow_frames_total", "kept", "fast"] == num_decoded("fast")
    assert series["winnow_frames_total", "dropped", "fast"] == 1500 - num_decoded("fast")
    # Decoded at two temperatures, encoded once.
    assert series["winnow_frames_total", "kept", "dense"] == 1500
    assert series["winnow_fallbacks_total", "fast", "repetition"] == 2
    assert series["winnow_windows_total", "fast"] == 1
    assert series["winnow_guarded_windows_total", "fast"] == 1


def test_the_profiles_file_is_read_once() -> None:
    reader, writer = os.pipe()  # as `<(command)` of a shell: a second reading gives nothing
    with open(writer, "w") as file:
        file.write("[half]\nlayer = 2\nsparsity = 0.5\n")
    try:
        config = ServerConfig(profiles_file=Path(f"/dev/fd/{reader}"), default_profile="half")
        app = create_app(config, lambda _: FakeModel())
    finally:
        os.close(reader)
    services: Services = app.state.services
    assert list(services.models.first.pipeline.profiles) == [*BUILT_IN, "half"]


def test_another_default_profile_and_a_profiles_file(server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "profiles.toml"
    file.write_text("[half]\nsparsity = 0.5\n")
    one = server(profiles_file=file, default_profile="half")
    assert one.transcribe(voice(1)).json()["profile"] == "half"
    assert "fake@half" in [m["id"] for m in one.client.get("/v1/models").json()["data"]]


def test_evidence_in_a_profiles_file_is_shown_of_the_model_it_names(
    server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "profiles.toml"
    own = MEASURED.replace("balanced", "ours").replace("command", 'model = "base"\ncommand')
    file.write_text(own + own.replace("ours", "theirs").replace("base", "small"))
    one = server(model="openai/whisper-base", profiles_file=file)
    profiles = {p["name"]: p for p in one.client.get("/profiles").json()["profiles"]}
    assert profiles["ours"]["evidence"][0]["windows"] == 71
    assert profiles["ours"]["measured"].startswith("WER 7.5% against 7.7% dense")
    assert profiles["theirs"]["measured"] == "Not measured on this model."
    file.write_text(MEASURED)
    with pytest.raises(ConfigError, match="model must name"):
        server(profiles_file=file)


def test_a_default_profile_that_does_not_exist_is_refused(server: StartServer) -> None:
    with pytest.raises(ConfigError, match="default_profile"):
        server(default_profile="warp")
