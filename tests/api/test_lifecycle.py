"""Loading, ready, draining, gone; and the routes that operators look at meanwhile."""

from __future__ import annotations

import html
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import profiles as profiles_module
from service.api.app import create_app, serve
from service.api.services import Services
from service.config import ServerConfig
from service.errors import CheckpointError, ConfigError
from service.model.fake import FakeModel
from service.model.protocol import SpeechModel
from service.profiles import BUILT_IN
from service.types import SAMPLE_RATE
from tests.harness import num_decoded

from .conftest import StartServer
from .harness import PATIENCE_S, Gate, Running, refused, voice, wav

REPOSITORY = Path(__file__).resolve().parents[2]


def test_ready_and_what_it_offers(shared: Running) -> None:
    assert shared.client.get("/healthz").json() == {"status": "ok"}
    assert shared.client.get("/readyz").json() == {"status": "ready"}
    profiles = shared.client.get("/profiles").json()["profiles"]
    assert [p["name"] for p in profiles] == list(BUILT_IN)
    assert [p["default"] for p in profiles] == [True, False, False, False]
    assert profiles[3] == {
        "name": "eas-published",
        "layer": 2,
        "sparsity": 0.5,
        "aggregation": "mean",
        "selection": "attention",
        "within": 0,
        "pool": "drop",
        "late": 0.0,
        "default": False,
        "description": BUILT_IN["eas-published"].description,
        "measured": "Not measured on this model.",
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
    assert 'action="/transcribe"' in page.text
    for name in BUILT_IN:
        assert f'<option value="{name}" data-about="' in page.text
    assert re.findall(r'<option value="(\w+)"[^>]* selected>', page.text) == ["dense"]
    assert "$$" not in page.text
    assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page.text)
    for link in re.findall(r'href="(/[^"]*)"', page.text):
        assert shared.client.get(link).status_code == 200


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
    sample = 'winnow_requests_total{endpoint="%s",profile="%s",status="%d"} 1.0'
    assert sample % ("/transcribe", "fast", 200) in text
    assert sample % ("/transcribe", "", 400) in text
    assert sample % ("other", "", 404) in text
    assert 'winnow_request_seconds_count{endpoint="/transcribe",profile="fast"} 1.0' in text
    assert "winnow_ready 1.0" in text
    assert "made-up" not in text


def test_series_of_the_work_itself(server: StartServer) -> None:
    one = server()
    tone = wav(0.3 * np.sin(2 * np.pi * 300 * np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE))
    # One word over and over: a repetition to the guard, which has it decoded again and again.
    asked = {"vad": "false", "no_speech_threshold": "1", "temperature": "0,1"}
    answer = one.transcribe(tone, profile="fast", **asked).json()
    assert [fallback["reason"] for fallback in answer["fallbacks"]] == ["repetition"] * 2
    series = {
        (sample.name, *sample.labels.values()): sample.value
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
    assert series["winnow_frames_total", "kept", "dense"] == 2 * 1500
    assert series["winnow_fallbacks_total", "fast", "repetition"] == 2
    assert series["winnow_windows_total", "fast"] == 1
    assert series["winnow_guarded_windows_total", "fast"] == 1


def test_the_profiles_file_is_read_once() -> None:
    reader, writer = os.pipe()  # as `<(command)` of a shell: a second reading gives nothing
    with open(writer, "w") as file:
        file.write("[half]\nlayer = 2\nsparsity = 0.5\n")
    try:
        config = ServerConfig(profiles_file=Path(f"/dev/fd/{reader}"), default_profile="half")
        app = create_app(config, FakeModel)
    finally:
        os.close(reader)
    services: Services = app.state.services
    assert list(services.pipeline.profiles) == [*BUILT_IN, "half"]


def test_another_default_profile_and_a_profiles_file(server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "profiles.toml"
    file.write_text("[half]\nsparsity = 0.5\n")
    one = server(profiles_file=file, default_profile="half")
    assert one.transcribe(voice(1)).json()["profile"] == "half"
    assert "fake@half" in [m["id"] for m in one.client.get("/v1/models").json()["data"]]


def test_a_default_profile_that_does_not_exist_is_refused(server: StartServer) -> None:
    with pytest.raises(ConfigError, match="default_profile"):
        server(default_profile="warp")


@contextmanager
def opening(event: threading.Event) -> Iterator[None]:
    """Opens a gate at the end, whatever happens, so that no thread is left waiting."""
    try:
        yield
    finally:
        event.set()


def test_while_loading_health_answers_and_work_is_told_to_come_back(server: StartServer) -> None:
    loaded = threading.Event()

    def load() -> SpeechModel:
        assert loaded.wait(PATIENCE_S)
        return FakeModel()

    with opening(loaded):
        one = server(load, wait=False)
        assert one.client.get("/healthz").status_code == 200
        assert one.client.get("/profiles").status_code == 200
        assert "winnow_ready 0.0" in one.client.get("/metrics").text
        for answer in (
            one.client.get("/readyz"),
            one.client.get("/v1/models"),
            one.transcribe(voice(1)),
            one.client.post("/v1/audio/transcriptions", files={"file": voice(1)}),
        ):
            assert "loading" in refused(answer, 503, "not_ready")
            assert int(answer.headers["retry-after"]) >= 1
        loaded.set()
        one.services.engine.wait_ready(PATIENCE_S)
        assert one.transcribe(voice(1)).status_code == 200


def test_a_model_that_cannot_be_loaded_ends_the_server() -> None:
    def load() -> SpeechModel:
        raise CheckpointError("no such model")

    with pytest.raises(CheckpointError, match="no such model"):
        serve(ServerConfig(port=0), load)


def test_a_profile_too_deep_for_the_model_is_refused_at_start(
    server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "profiles.toml"
    file.write_text("[deep]\nlayer = 5\nsparsity = 0.5\n")
    with pytest.raises(ConfigError, match="deep: layer 5, but the model has 4"):
        server(profiles_file=file)


def test_draining_finishes_what_was_accepted_and_refuses_the_rest(server: StartServer) -> None:
    gate = Gate()
    one = server(lambda: FakeModel(fail_encode_when=gate))
    with opening(gate.opened), ThreadPoolExecutor(1) as pool, opening(gate.opened):
        accepted = pool.submit(one.transcribe, voice(1))
        assert gate.reached.wait(PATIENCE_S)
        one.server.handle_exit(signal.SIGTERM, None)
        one.eventually(lambda: one.client.get("/readyz").status_code == 503)
        for answer in (one.transcribe(voice(1)), one.client.get("/readyz")):
            assert "shutting down" in refused(answer, 503, "not_ready")
            assert int(answer.headers["retry-after"]) >= 1
        assert one.client.get("/healthz").status_code == 200
        gate.opened.set()
        assert accepted.result(PATIENCE_S).status_code == 200
        one.eventually(lambda: one.services.engine.state == "stopped")


def test_who_comes_as_a_drain_ends_is_still_told(
    server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.server.LAST_REFUSALS_S", 5.0)
    one = server(FakeModel)
    one.server.handle_exit(signal.SIGTERM, None)
    one.eventually(lambda: one.services.engine.state == "draining")
    time.sleep(0.5)  # idle for several of the server's heartbeats
    assert refused(one.transcribe(voice(1)), 503, "not_ready")


def test_what_outlasts_the_drain_is_answered_too(server: StartServer) -> None:
    gate = Gate()
    one = server(lambda: FakeModel(fail_encode_when=gate), drain_seconds=0)
    with opening(gate.opened), ThreadPoolExecutor(1) as pool, opening(gate.opened):
        accepted = pool.submit(one.transcribe, voice(1))
        assert gate.reached.wait(PATIENCE_S)
        one.server.handle_exit(signal.SIGTERM, None)
        assert refused(accepted.result(PATIENCE_S), 503, "not_ready")


SERVE = """
import sys, time
from service.api.app import serve
from service.config import load_config
from service.model.fake import FakeModel

def hold(mel_FT):
    if mel_FT.max() > mel_FT.min():
        print("encoding", file=sys.stderr, flush=True)
        time.sleep(HOLD_S)
    return False

serve(load_config({}, port=0, drain_seconds=60), lambda: FakeModel(fail_encode_when=hold))
"""


@contextmanager
def process(hold_s: float) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The service in a process of its own, with its start-up line and URL."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE.replace("HOLD_S", str(hold_s))],
        cwd=REPOSITORY,
        env={k: v for k, v in os.environ.items() if not k.startswith("WINNOW_")},
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            line = _logged(server, "Winnow serves")
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found
            yield server, line, found.group()
        finally:
            server.kill()


def _logged(server: subprocess.Popen[str], words: str) -> str:
    """Reads the log up to the line with these words."""
    assert server.stderr is not None
    before = ""
    for line in server.stderr:
        if words in line:
            return line
        before += line
    raise AssertionError(f"the process ended without saying {words!r}:\n{before}")


def test_the_start_up_line_and_a_signal_that_drains() -> None:
    with process(hold_s=1.0) as (server, line, url), ThreadPoolExecutor(1) as pool:
        for part in ("fake", "on cpu", "dense, balanced, fast"):
            assert part in line
        accepted = pool.submit(httpx.post, f"{url}/transcribe", files={"file": voice(1)})
        _logged(server, "encoding")
        server.send_signal(signal.SIGTERM)
        assert accepted.result(PATIENCE_S).status_code == 200
        assert server.wait(PATIENCE_S) == 0


def test_a_second_signal_ends_it_at_once() -> None:
    with process(hold_s=PATIENCE_S) as (server, _, url), ThreadPoolExecutor(1) as pool:
        pending = pool.submit(
            httpx.post, f"{url}/transcribe", files={"file": voice(1)}, timeout=PATIENCE_S
        )
        _logged(server, "encoding")
        server.send_signal(signal.SIGINT)
        _logged(server, "draining")
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE_S) == 128 + signal.SIGINT
        assert isinstance(pending.exception(PATIENCE_S), httpx.TransportError)
