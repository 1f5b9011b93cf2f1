"""Loading, ready, draining, gone."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch

from service.api.app import serve
from service.api.server import start_up_line
from service.config import ServerConfig
from service.errors import CheckpointError, ConfigError, EngineError
from service.families.fake import FakeModel
from service.model.protocol import ModelInfo, SpeechModel

from .conftest import StartServer
from .harness import PATIENCE_S, Gate, refused, voice

REPOSITORY = Path(__file__).resolve().parents[2]


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
        assert 'winnow_ready{model="fake"} 0.0' in one.client.get("/metrics").text
        for answer in (
            one.client.get("/readyz"),
            one.transcribe(voice(1)),
            one.client.post("/v1/audio/transcriptions", files={"file": voice(1)}),
        ):
            assert "loading" in refused(answer, 503, "not_ready")
            assert int(answer.headers["retry-after"]) >= 1
        assert one.client.get("/v1/models").json()["data"][0]["loaded"] is False
        loaded.set()
        one.engine.wait_ready(PATIENCE_S)
        assert one.transcribe(voice(1)).status_code == 200


def test_a_model_that_cannot_be_loaded_ends_the_server() -> None:
    def load(_: ServerConfig) -> SpeechModel:
        raise CheckpointError("no such model")

    with pytest.raises(CheckpointError, match="no such model"):
        serve(ServerConfig(port=0), load)


@pytest.mark.parametrize("end", ["a dead thread", "a device that stays lost"])
def test_what_only_another_process_mends_ends_the_server_when_all_are_answered(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine.recovery.MOST_PROBES", 1)
    monkeypatch.setattr("service.engine.engine.RECOVERY_S", 0.01)
    armed = threading.Event()

    def fail(_: torch.Tensor) -> bool:
        if end == "a dead thread" and armed.is_set():
            raise SystemExit
        return armed.is_set()

    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(
            serve, ServerConfig(port=port), lambda _: FakeModel(fail_encode_when=fail)
        )
        url = f"http://127.0.0.1:{port}"
        give_up = time.monotonic() + PATIENCE_S
        while not is_ready(url):
            assert time.monotonic() < give_up
            time.sleep(0.01)
        armed.set()
        answer = httpx.post(f"{url}/transcribe", files={"file": voice(1)}, timeout=PATIENCE_S)
        refused(answer, 500, "engine_error")
        with pytest.raises(EngineError, match=r"SystemExit|1 times in a row"):
            served.result(PATIENCE_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


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
        one.eventually(lambda: one.engine.state == "stopped")


def test_who_comes_as_a_drain_ends_is_still_told(
    server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.server.LAST_REFUSALS_S", 5.0)
    one = server(FakeModel)
    one.server.handle_exit(signal.SIGTERM, None)
    one.eventually(lambda: one.engine.state == "draining")
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
from service.families.fake import FakeModel

def hold(mel_FT):
    if mel_FT.max() > mel_FT.min():
        print("encoding", file=sys.stderr, flush=True)
        time.sleep(HOLD_S)
    return False

serve(load_config({}, port=0, drain_seconds=60), lambda _: FakeModel(fail_encode_when=hold))
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
        for part in ("fake", "on cpu in float32, ", " thread", "dense, balanced, fast"):
            assert part in line
        accepted = pool.submit(httpx.post, f"{url}/transcribe", files={"file": voice(1)})
        _logged(server, "encoding")
        server.send_signal(signal.SIGTERM)
        assert accepted.result(PATIENCE_S).status_code == 200
        assert server.wait(PATIENCE_S) == 0


class EightBitModel(FakeModel):
    """The fake model, as one presents itself whose weights are of another type."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, dtype="bfloat16", weight_dtype="int8")


def test_the_types_of_both_are_said(server: StartServer) -> None:
    one = server(EightBitModel)
    line = start_up_line(one.services, one.url)
    threads = one.engine.num_threads
    said = f"{threads} thread{'s' if threads > 1 else ''}"
    assert f" on cpu in bfloat16, weights in int8, {said}, profiles dense" in line
    model = one.client.get("/v1/models/fake").json()
    assert (model["dtype"], model["weight_dtype"]) == ("bfloat16", "int8")
    info = next(s for s in one.client.get("/metrics").text.splitlines() if "model_info{" in s)
    assert all(said in info for said in ('weight_dtype="int8"', f'threads="{threads}"'))


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
