"""Profiles by other weights, served: from a profiles file and folders of adapters to an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli import OK, USAGE, main
from service.errors import ConfigError
from service.families.fake import FakeModel
from service.families.whisper import Whisper
from tests.checkpoints import load_plain, write_checkpoint
from tests.lab.recordings import corpus

from .conftest import StartServer
from .harness import voice

PROFILES = """
[everything]
layer = 1
sparsity = 0.5
pool = "mean"
low_rank = "0.5"
bits = 4

[small]
bits = 8
"""


@pytest.fixture(scope="module")
def deep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As deep as the built-in profiles need."""
    return write_checkpoint(tmp_path_factory.mktemp("deep") / "deep", shape="mini", layers=(3, 1))


@pytest.fixture(scope="module")
def adapter(deep_folder: Path) -> Path:
    out, recordings = deep_folder.parent / "low-rank", corpus(deep_folder.parent / "corpus")
    command = ["compress", "low-rank", "--model", str(deep_folder), "--corpus", str(recordings)]
    command += ["--domains", "read", "--split", "all", "--limit", "2", "--theta", "0.5"]
    assert main([*command, "--out", str(out)]) == OK
    return out


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    file = tmp_path / "profiles.toml"
    file.write_text(PROFILES)
    return file


def test_requests_go_by_the_weights_that_their_profile_names(
    server: StartServer, deep_folder: Path, adapter: Path, profiles: Path
) -> None:
    one = server(
        lambda: Whisper(load_plain(str(deep_folder))),
        model=str(deep_folder),
        profiles_file=profiles,
        adapters=(str(adapter),),
    )
    said = {
        each["name"]: each["description"] for each in one.client.get("/profiles").json()["profiles"]
    }
    assert "through fewer dimensions (0.5)" in said["everything"]
    assert said["small"] == "Every frame is kept. The encoder's weights have 8 bits."
    for name in ("dense", "everything", "small"):
        answer = one.client.post(
            "/transcribe",
            files={"file": voice(2)},
            data={"profile": name, "language": "en", "vad": "false"},
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["profile"] == name


def test_a_service_whose_profiles_want_what_is_not_there_does_not_start(
    server: StartServer, deep_folder: Path, profiles: Path
) -> None:
    with pytest.raises(ConfigError, match=r"profile everything: low_rank '0.5' of deep is in none"):
        server(
            lambda: Whisper(load_plain(str(deep_folder))),
            model=str(deep_folder),
            profiles_file=profiles,
        )


def test_a_model_without_weights_has_no_others(server: StartServer, profiles: Path) -> None:
    with pytest.raises(ConfigError, match=r"profile everything: .*: the fake model has no weights"):
        server(FakeModel, profiles_file=profiles)


def test_files_go_by_the_weights_that_their_profile_names(
    deep_folder: Path,
    adapter: Path,
    profiles: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recording = tmp_path / "a.wav"
    recording.write_bytes(voice(2))
    command = ["transcribe", "--model", str(deep_folder), "--profiles-file", str(profiles)]
    command += ["--language", "en", "--no-vad", "--format", "json", str(recording)]
    monkeypatch.setenv("WINNOW_ADAPTERS", str(adapter))
    assert main([*command, "--profile", "everything"]) == OK
    assert '"profile": "everything"' in capsys.readouterr().out
    monkeypatch.delenv("WINNOW_ADAPTERS")
    assert main([*command, "--profile", "small"]) == OK  # what others name is not looked for
    assert main([*command, "--profile", "everything"]) == USAGE
    assert "low_rank '0.5'" in capsys.readouterr().err
