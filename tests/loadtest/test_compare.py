"""Whole runs, each a process of its own: Locust puts gevent under the standard library."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from loadtest.own_service import ServiceFailed, check_ready
from service.families.fake import FakeModel
from service.families.whisper import Whisper
from tests.api.harness import Gate, running, voice
from tests.speech import SAID, SAMPLE

PROCESS_S = 300.0  # how long a test waits before it calls a process stuck; never a measurement
COMPARE = [sys.executable, "-m", "loadtest.compare"]
LOCUST = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless"]


def run(command: list[str], status: int) -> str:
    """What a command printed; fails unless it ends with that status."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROCESS_S)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return content


@pytest.mark.model
def test_profiles_are_compared_on_a_service_of_its_own(
    tiny_en: Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINNOW_THREADS", "1")
    monkeypatch.setenv("WINNOW_MODEL", tiny_en.info.name)
    # One word more than is said, so that there is an error whatever is read.
    manifest = tmp_path / "manifest.tsv"
    manifest.write_text(f"path\ttranscript\n{SAMPLE}\t{SAID} Amen.\n")
    command = [
        *COMPARE,
        "--manifest",
        str(manifest),
        "--profiles",
        "dense,fast",
        "--rate",
        "4",
        "--duration",
        "1s",
    ]
    command += ["--arrivals", "constant", "--max-lateness", "1h", "--timeout", "5m"]
    said = run([*command, "--max-wer", "0%", "--out", str(tmp_path)], status=1)
    found = read(tmp_path)
    assert [s["step"]["profile"] for s in found["steps"]] == ["dense", "fast"]
    for step in found["steps"]:
        summary, server_side = step["summary"], step["server"]
        assert summary["statuses"] == {"200": 4}
        assert summary["error_share"] == 0
        assert 0 < summary["p50_s"] <= summary["p95_s"] <= summary["p99_s"]
        assert step["held"] is True
        assert step["locust"]["num_requests"] == 4
        assert step["locust"]["num_failures"] == 0
        assert server_side["requests_by_status"] == {"200": 4}
        assert server_side["audio_seconds"] == pytest.approx(
            summary["offered_rtfx"] * step["step"]["seconds"], rel=1e-3
        )
        assert server_side["memory"]
        assert 0 < step["words"]["wer"] < 0.2
    dense, fast = (step["server"]["frames_kept_share"] for step in found["steps"])
    assert fast < dense == 1.0
    assert found["num_requests"] == 8
    assert found["model"]["name"] == "whisper-tiny.en"
    assert found["shares_machine"] is True
    assert found["command"].startswith("python -m loadtest.compare --manifest")
    assert "1 recordings of 7.6-7.6 s" in found["mix"]
    assert len(found["problems"]) == 2
    assert "FAILED: dense: WER" in said
    assert (tmp_path / "report.png").stat().st_size > 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{found['host']}/healthz", timeout=5)


def write_manifest(folder: Path) -> Path:
    """A short recording of which nobody knows the words."""
    (folder / "voice.wav").write_bytes(voice(1.0))
    (folder / "manifest.csv").write_text("path,transcript\nvoice.wav,\n")
    return folder / "manifest.csv"


def test_a_known_maximum_is_measured_and_overloaded(tmp_path: Path) -> None:
    with running() as server:
        command = [*COMPARE, "--host", server.url, "--manifest", str(write_manifest(tmp_path))]
        command += ["--profiles", "dense", "--maximum", "4", "--arrivals", "constant"]
        command += ["--duration", "1s", "--overload", "1s", "--overload-factor", "3"]
        said = run([*command, "--max-lateness", "0.001ms", "--out", str(tmp_path)], status=0)
    found = read(tmp_path)
    assert [(s["step"]["kind"], s["summary"]["num_requests"]) for s in found["steps"]] == [
        ("maximum", 4),
        ("overload", 12),
    ]
    assert found["maxima"] == {"dense": 4}
    assert found["overloads"][0]["profile"] == "dense"
    assert found["steps"][0]["words"]["wer"] is None
    assert "THE GENERATOR WAS THE BOTTLENECK in 2 of 2 steps" in said


def test_requests_do_not_wait_refused_clients_return_and_ctrl_c_reports(tmp_path: Path) -> None:
    gate, labels = Gate(), {"endpoint": "/transcribe", "profile": "dense", "status": "429"}
    held = FakeModel(fail_encode_when=gate)
    with running(lambda: held, max_batch_windows=1, max_queue_windows=5) as server:
        command = [*COMPARE, "--host", server.url, "--manifest", str(write_manifest(tmp_path))]
        command += ["--profiles", "dense", "--rate", "30", "--duration", "10m"]
        process = subprocess.Popen(
            [*command, "--obey-retry-after", "1", "--out", str(tmp_path)], stdout=subprocess.PIPE
        )
        try:
            # Nothing is answered, and still more comes, until the queue is full and after that.
            server.eventually(lambda: server.metric("winnow_requests_total", **labels) >= 90)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=PROCESS_S)[0].decode()
        finally:
            process.kill()
            gate.opened.set()
        refusals = server.metric("winnow_requests_total", **labels)
    assert process.returncode == 130
    assert "INTERRUPTED" in said
    found = read(tmp_path)
    assert found["interrupted"] is True
    assert found["problems"] == []
    summary = found["steps"][0]["summary"]
    assert summary["cut_off"] >= 6
    returns, first_refusals = summary["returns"], summary["statuses"]["429"]
    assert 0 < returns["sent"] <= first_refusals
    assert returns["refused_again"] == returns["sent"]
    assert returns["accepted_share"] == 0
    assert returns["mean_wait_s"] == 1
    assert 90 <= returns["asked"] == first_refusals + returns["refused_again"] <= refusals


def test_nobody_at_the_host_is_said() -> None:
    with pytest.raises(ServiceFailed, match="no service is ready there"):
        check_ready("http://127.0.0.1:9")


def test_locusts_own_command_runs_users_of_each_profile() -> None:
    with running() as server:
        said = run([*LOCUST, "--host", server.url, "-u", "3", "-r", "3", "-t", "1s",
                    "--user-rate", "5", "--arrivals", "constant"], status=0)  # fmt: skip
        for profile in ("dense", "balanced", "fast"):
            labels = {"endpoint": "/transcribe", "profile": profile, "status": "200"}
            assert server.metric("winnow_requests_total", **labels) >= 1
            assert f"{profile}: " in said


def test_locusts_shape_steps_down_from_a_limit_that_nothing_holds() -> None:
    with running() as server:
        said = run([*LOCUST, "--host", server.url, "--find-max-p95", "0.00001", "--profiles",
                    "fast,balanced", "--step-users", "2", "--step-time", "1",
                    "--user-rate", "9"], status=0)  # fmt: skip
        labels = {"endpoint": "/transcribe", "profile": "dense", "status": "200"}
        assert server.metric("winnow_requests_total", **labels) == 0
    assert "highest step whose p95 held: none" in said


def test_gevent_stays_out_of_the_other_tests() -> None:
    assert not {"gevent", "locust"} & set(sys.modules)
