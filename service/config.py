"""Environment and TOML -> one frozen ServerConfig, validated once. Nothing below reads either."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from service.errors import ConfigError

PREFIX = "WINNOW_"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Settings of the service. Each is `WINNOW_<NAME>` in the environment, or a TOML key."""

    host: str = "127.0.0.1"
    port: int = 8000
    model: str = "whisper-base"  # a name, a hub id, a folder, or a .pt file of openai-whisper
    cache_dir: Path | None = None  # of models from data packages; $XDG_CACHE_HOME/winnow
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    dtype: str = "auto"  # auto (float16 on CUDA, float32 on CPU) | float32 | float16 | bfloat16
    threads: int = 0  # torch's CPU threads; 0 leaves torch's choice
    audio_threads: int = 2  # recordings that are decoded and heard at once
    profiles_file: Path | None = None
    default_profile: str = "dense"
    max_upload_mb: int = 200
    max_audio_seconds: int = 4 * 3600
    max_queue_windows: int = 2000
    max_wait_seconds: int = 20  # who would wait longer for the device gets 429
    max_batch_windows: int = 8
    max_decode_windows: int = 32
    batch_wait_ms: int = 5
    deadline_seconds: int = 900
    drain_seconds: int = 30
    max_live_sessions: int = 64  # connected at once; as many more are kept for those cut off
    live_keep_seconds: int = 60  # how long a session outlives its connection
    live_idle_seconds: int = 60  # a connection that sends nothing for so long is closed
    live_buffer_seconds: int = 60  # audio of a session that waits; more is not read from it

    def __post_init__(self) -> None:
        """Raises ConfigError with a sentence that says what would be right."""
        _at_least(self, 0, "port", "threads", "batch_wait_ms", "drain_seconds")
        _at_least(
            self, 1, "audio_threads", "max_upload_mb", "max_audio_seconds", "max_queue_windows"
        )
        _at_least(self, 1, "max_batch_windows", "max_decode_windows", "deadline_seconds")
        _at_least(self, 1, "max_wait_seconds")
        _at_least(self, 1, "max_live_sessions", "live_keep_seconds", "live_idle_seconds")
        _at_least(self, 32, "live_buffer_seconds")  # an utterance has up to 28 s
        for name in ("host", "model", "default_profile"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name}: must not be empty")
        if self.port > 65535:
            raise ConfigError(f"port {self.port}: use 0 to 65535")
        if self.dtype not in ("auto", "float32", "float16", "bfloat16"):
            raise ConfigError(f"dtype {self.dtype!r}: use auto, float32, float16 or bfloat16")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"device {self.device!r}: use auto, cpu, cuda or cuda:N")


def load_config(environ: Mapping[str, str], **overrides: Any) -> ServerConfig:
    """Defaults, then the TOML file of `WINNOW_CONFIG`, then `WINNOW_*`, then `overrides`.

    An override that is None counts as not given. Raises ConfigError for an unknown setting, a
    value of the wrong type or out of range, or a file that cannot be read.
    """
    given = {k[len(PREFIX) :].lower(): v for k, v in environ.items() if k.startswith(PREFIX)}
    path = given.pop("config", None)
    settings: dict[str, Any] = _read_toml(Path(path)) if path else {}
    settings |= given
    settings |= {name: value for name, value in overrides.items() if value is not None}
    types = {f.name: f.type for f in fields(ServerConfig)}
    if unknown := sorted(set(settings) - set(types)):
        raise ConfigError(
            f"unknown setting {', '.join(PREFIX + name.upper() for name in unknown)}; "
            f"valid: {', '.join(PREFIX + name.upper() for name in types)}"
        )
    parsed = {name: _parse(name, value, str(types[name])) for name, value in settings.items()}
    return replace(ServerConfig(), **parsed)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"settings file {path}: {error}") from error


def _parse(name: str, value: Any, type_name: str) -> Any:
    shown = f"{PREFIX}{name.upper()}={str(value)!r}"
    if type_name == "int":
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ConfigError(f"{shown}: must be a whole number")
        try:
            return int(value)
        except ValueError:
            raise ConfigError(f"{shown}: must be a whole number") from None
    if type_name == "Path | None":
        if not isinstance(value, str | Path):
            raise ConfigError(f"{shown}: must be a path")
        return Path(value).expanduser() if str(value) else None
    if not isinstance(value, str):
        raise ConfigError(f"{shown}: must be a string")
    return value


def _at_least(config: ServerConfig, least: int, *names: str) -> None:
    for name in names:
        if getattr(config, name) < least:
            raise ConfigError(f"{name} {getattr(config, name)}: must be at least {least}")
