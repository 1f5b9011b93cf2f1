"""Settings: where they come from, and what is refused with which sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.config import ApiKeys, ServerConfig, load_config
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


INJECTED = {
    "WINNOW_SERVICE_HOST": "10.96.1.2",
    "WINNOW_SERVICE_PORT": "8000",
    "WINNOW_SERVICE_PORT_HTTP": "8000",
    "WINNOW_SERVICE_PORT_METRICS_2": "8001",
    "WINNOW_PORT": "tcp://10.96.1.2:8000",
    "WINNOW_PORT_8000_TCP": "tcp://10.96.1.2:8000",
    "WINNOW_PORT_8000_TCP_PROTO": "tcp",
    "WINNOW_PORT_8000_TCP_PORT": "8000",
    "WINNOW_PORT_8000_TCP_ADDR": "10.96.1.2",
    "WINNOW_PORT_53_UDP_ADDR": "fd00::2",
    "WINNOW_GPU_SERVICE_HOST": "10.96.1.3",  # of a Service named winnow-gpu
    "WINNOW_GPU_SERVICE_PORT": "8000",
    "WINNOW_GPU_PORT": "tcp://10.96.1.3:8000",
    "WINNOW_NAME": "/web/winnow",  # of a link of Docker's
    "WINNOW_ENV_PATH": "/usr/bin",
    "WINNOW_PORT_8000_TCP_START": "tcp://172.17.0.5:8000",
    "WINNOW_PORT_8000_TCP_PORT_END": "8009",
    "WINNOW_GPU_PORT_8000_TCP_PORT": "8000",
    "WINNOW_HOST_PORT": "udp://10.96.1.4:1",
}


def test_what_an_orchestrator_puts_there_is_no_setting(caplog: pytest.LogCaptureFixture) -> None:
    assert load_config(INJECTED) == ServerConfig()
    (told,) = caplog.messages
    assert "WINNOW_PORT=tcp://10.96.1.2:8000" in told
    assert load_config({**INJECTED, "WINNOW_PORT": "80"}).port == 80


@pytest.mark.parametrize(
    "name",
    [
        *("SERVICE_HOTS", "SERVICE", "SERVICE_PROT", "SERVICE_PORTS", "PORT_8000", "PORT_8000_TPC"),
        *("PORT_8000_TCP_ADR", "HOST_SERVICE", "GPU_PORT", "PROT", "NAME"),
    ],
)
def test_what_looks_nearly_like_it_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown setting WINNOW_{name};"):
        load_config({f"WINNOW_{name}": "8000"})


def test_lists_numbers_and_flags(tmp_path: Path) -> None:
    environ = {
        "WINNOW_CORS_ORIGINS": "https://a.example, http://localhost:5173,",
        "WINNOW_KEEP_ALIVE_SECONDS": "0.5",
        "WINNOW_METRICS_OPEN": "Yes",
        "WINNOW_ROOT_PATH": "/stt/v2",
    }
    config = load_config(environ)
    assert config.cors_origins == ("https://a.example", "http://localhost:5173")
    assert (config.keep_alive_seconds, config.metrics_open) == (0.5, True)
    assert config.root_path == "/stt/v2"
    file = tmp_path / "winnow.toml"
    file.write_text(
        'cors_origins = ["*"]\nkeep_alive_seconds = 5\nmetrics_open = false\n'
        'api_keys = ["sk-a", "sk-b"]\n'
    )
    config = load_config({"WINNOW_CONFIG": str(file)})
    assert (config.cors_origins, config.keep_alive_seconds) == (("*",), 5.0)
    assert config.metrics_open is False
    assert config.api_keys == ApiKeys.of(["sk-b", "sk-a"])


def test_keys_cannot_be_shown_or_told_nearly() -> None:
    config = load_config({"WINNOW_API_KEYS": " sk-first ,sk-second"})
    for key in ("sk-first", "sk-second"):
        assert config.api_keys.has(key)
        assert key not in repr(config)
    for key in ("", "sk-firs", "sk-first ", "SK-FIRST", "sk-first,sk-second", "sk-\udcff"):
        assert not config.api_keys.has(key)
    assert not ServerConfig().api_keys


@pytest.mark.parametrize("keys", ["", " , ", "sk secret", "sk-s\u00e9cret", "sk-se\ncret"])
def test_keys_that_cannot_be_sent_are_refused_unseen(keys: str) -> None:
    with pytest.raises(ConfigError, match="API") as refused:
        load_config({"WINNOW_API_KEYS": f"sk-secret2,{keys}" if keys.strip(" ,") else keys})
    assert "cret" not in str(refused.value)


def test_keys_as_json_are_refused() -> None:
    with pytest.raises(ConfigError, match="without brackets") as refused:
        load_config({"WINNOW_API_KEYS": '["sk-secret"]'})
    assert "secret" not in str(refused.value)


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
        ("dtype", "int4"),
        ("model", ""),
        ("host", " "),
        ("root_path", "stt"),
        ("root_path", "/stt/"),
        ("root_path", "/"),
        ("root_path", "/a b"),
        ("cors_origins", "app.example"),
        ("cors_origins", "https://app.example/"),
        ("cors_origins", "https://*.example"),
        ("keep_alive_seconds", "0"),
        ("header_seconds", "nan"),
        ("stall_seconds", "soon"),
        ("metrics_open", "maybe"),
        ("max_connections", "0"),
        ("max_uploads", "0"),
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


@pytest.mark.parametrize("dtype", ["auto", "int8", "bfloat16", "float16", "float32"])
def test_types_that_can_be_asked_for(dtype: str) -> None:
    assert load_config({"WINNOW_DTYPE": dtype}).dtype == dtype
