"""Settings: where they come from, and what is refused with which sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.config import ServerConfig, load_config
from service.errors import ConfigError


def test_nothing_given_is_the_defaults() -> None:
    assert load_config({}) == ServerConfig()


def test_environment_wins_over_the_file_and_overrides_win_over_both(tmp_path: Path) -> None:
    file = tmp_path / "winnow.toml"
    file.write_text('port = 1\nhost = "0.0.0.0"\nmodel = "from-file"\n')
    environ = {"WINNOW_CONFIG": str(file), "WINNOW_PORT": "2", "WINNOW_HOST": "::1"}
    config = load_config(environ, port=3, model=None)
    assert (config.port, config.host, config.model) == (3, "::1", "from-file")


def test_other_programs_variables_are_left_alone() -> None:
    assert load_config({"PATH": "/bin", "WINNOWING": "1"}) == ServerConfig()


def test_an_unknown_setting_is_refused_and_the_valid_ones_listed() -> None:
    with pytest.raises(ConfigError, match="unknown setting WINNOW_PROT") as refused:
        load_config({"WINNOW_PROT": "80"})
    assert "WINNOW_PORT" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "eighty"),
        ("port", ""),
        ("port", "-1"),
        ("port", "65536"),
        ("port", "80.5"),
        ("max_upload_mb", "0"),
        ("max_queue_windows", "0"),
        ("max_batch_windows", "0"),
        ("deadline_seconds", "0"),
        ("drain_seconds", "-1"),
        ("model_aliases", "whisper-1@fast"),
        ("model_aliases", "whisper 1"),
        ("device", "tpu"),
        ("device", "cuda:first"),
        ("device", "cuda:"),
        ("dtype", "int8"),
        ("model", ""),
        ("host", " "),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"(?i){name}"):
        load_config({f"WINNOW_{name.upper()}": value})


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:13"])
def test_devices_that_are_taken(device: str) -> None:
    assert load_config({"WINNOW_DEVICE": device}).device == device


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("port = true", "whole number"),
        ("port = 80.0", "whole number"),
        ("host = 5", "string"),
        ("profiles_file = 3", "path"),
        ("profiles_file = ['a']", "path"),
        ("port = ", "settings file"),
    ],
)
def test_a_file_with_a_wrong_type_or_syntax_is_refused(
    tmp_path: Path, line: str, says: str
) -> None:
    file = tmp_path / "winnow.toml"
    file.write_text(line)
    with pytest.raises(ConfigError, match=says):
        load_config({"WINNOW_CONFIG": str(file)})


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="settings file"):
        load_config({"WINNOW_CONFIG": str(tmp_path / "none.toml")})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="settings file"):
        load_config({"WINNOW_CONFIG": str(tmp_path / "binary.toml")})


def test_a_path_may_start_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config({"WINNOW_PROFILES_FILE": "~/p.toml"}).profiles_file == tmp_path / "p.toml"


def test_the_default_is_a_real_model_from_the_users_cache() -> None:
    assert (ServerConfig().model, ServerConfig().cache_dir) == ("whisper-base", None)
    assert load_config({"WINNOW_CACHE_DIR": "/models"}).cache_dir == Path("/models")


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_profiles_file_is_none(value: Any) -> None:
    assert load_config({}, profiles_file=value).profiles_file is None
