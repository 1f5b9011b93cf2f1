"""Environment and TOML -> one frozen ServerConfig, validated once. Nothing below reads either."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from service.errors import ConfigError

logger = logging.getLogger("winnow.config")

PREFIX = "WINNOW_"
# What Kubernetes puts into a container for a Service named winnow or winnow-..., and Docker for a
# link of that name: addresses of others, and what they were given, not settings.
INJECTED = re.compile(
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|ENV_\w+"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|ADDR|(PORT_)?(START|END)|PORT))?)"
)
# By the end of a variable's name, what it holds where it is an orchestrator's.
ADDRESSES = {
    "PORT": re.compile(r"(tcp|udp|sctp)://.*"),
    "NAME": re.compile(r"(/[\w.-]+){2}"),  # of a link: who asks, and by which name
}
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/\s,?#*]+")
KEY = re.compile(r"[!-+\--~]+")  # what a header can carry, without spaces and commas
FLAGS = {"true": True, "1": True, "yes": True, "on": True} | {
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Keys that open the service, as SHA-256 digests: what they were cannot be shown."""

    digests: frozenset[bytes] = field(default=frozenset(), repr=False)

    @classmethod
    def of(cls, keys: Iterable[str]) -> ApiKeys:
        """Raises ConfigError, without the key in it, for one that no header can carry."""
        keys = tuple(keys)
        if not all(KEY.fullmatch(key) for key in keys):
            raise ConfigError("API keys: use printable ASCII without spaces or commas")
        return cls(frozenset(hashlib.sha256(key.encode()).digest() for key in keys))

    def __or__(self, other: ApiKeys) -> ApiKeys:
        return ApiKeys(self.digests | other.digests)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def has(self, key: str) -> bool:
        """Whether the key is one of them, in a time that does not tell how nearly it was."""
        given = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = False
        for digest in self.digests:
            found |= hmac.compare_digest(digest, given)
        return found


# What OpenAI calls its models for transcription: the names that clients have built in.
ALIASES = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
)

# What may be asked for to compute in; int8 is of the products' weights.
DTYPES = ("auto", "int8", "bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Settings of the service. Each is `WINNOW_<NAME>` in the environment, or a TOML key."""

    host: str = "127.0.0.1"
    port: int = 8000
    root_path: str = ""  # where a proxy puts the service, as /stt
    cors_origins: tuple[str, ...] = ()  # web pages that may call it from a browser; * for all
    api_keys: ApiKeys = ApiKeys()  # comma-separated; with one set, nothing is answered without
    api_keys_file: Path | None = None  # more of them, one a line
    metrics_open: bool = False  # /metrics without a key
    keep_alive_seconds: float = 75  # above the 60 s of common proxies, which reuse connections
    header_seconds: float = 10  # a connection that has not sent a request's head by then is closed
    stall_seconds: float = 15  # an upload slower than the least, or an answer nobody reads, ends
    min_upload_bytes_per_second: int = 500
    max_connections: int = 4096  # above it the one that has been idle longest gives way
    max_uploads: int = 256  # being read at once
    max_uploading_mb: int = 2048  # of all that are being read
    model: str = "whisper-base"  # a name, a hub id, a folder, or a .pt file of openai-whisper
    models: tuple[str, ...] = ()  # further ones, loaded when they are asked for
    models_memory_mb: int = 0  # of the weights of all that are loaded; 0: 40% of what there is
    model_aliases: tuple[str, ...] = ALIASES  # other names by which /v1 takes the model
    cache_dir: Path | None = None  # of models from data packages; $XDG_CACHE_HOME/winnow
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    dtype: str = "auto"  # auto | int8 | bfloat16 | float16 | float32; auto as the device has it
    threads: int = 0  # of the model on a CPU; 0: as many as this process may use
    audio_threads: int = 2  # recordings that are decoded and heard at once
    profiles_file: Path | None = None
    adapters: tuple[str, ...] = ()  # folders of other weights, by which profiles may go
    default_profile: str = "dense"
    max_upload_mb: int = 200
    max_audio_seconds: int = 4 * 3600
    max_queue_windows: int = 2000
    max_wait_seconds: int = 20  # who would wait longer for the device gets 429
    max_batch_windows: int = 8
    max_decode_windows: int = 32
    decode_memory_mb: int = 0  # of windows in decode; 0: half of what is free, 80% on a GPU
    batch_wait_ms: int = 5
    deadline_seconds: int = 900
    explain: bool = False  # /explain draws what a profile keeps of a recording, at twice the cost
    drain_seconds: int = 30
    max_live_sessions: int = 64  # connected at once; as many more are kept for those cut off
    live_keep_seconds: int = 60  # how long a session outlives its connection
    live_idle_seconds: int = 60  # a connection that sends nothing for so long is closed
    live_buffer_seconds: int = 60  # audio of a session that waits; more is not read from it

    def __post_init__(self) -> None:
        """Raises ConfigError with a sentence that says what would be right."""
        _at_least(self, 0, "port", "threads", "batch_wait_ms", "drain_seconds")
        _at_least(self, 0, "decode_memory_mb", "models_memory_mb")
        _at_least(
            self, 1, "audio_threads", "max_upload_mb", "max_audio_seconds", "max_queue_windows"
        )
        _at_least(self, 1, "max_batch_windows", "max_decode_windows", "deadline_seconds")
        _at_least(self, 1, "max_wait_seconds")
        _at_least(self, 1, "max_live_sessions", "live_keep_seconds", "live_idle_seconds")
        _at_least(self, 32, "live_buffer_seconds")  # an utterance has up to 28 s
        _at_least(self, 1, "max_connections", "max_uploads", "max_uploading_mb")
        _at_least(self, 1, "min_upload_bytes_per_second")
        _check_web(self)
        for name in ("host", "model", "default_profile"):
            if not getattr(self, name).strip():
                raise ConfigError(f"{name}: must not be empty")
        if self.port > 65535:
            raise ConfigError(f"port {self.port}: use 0 to 65535")
        check_dtype(self.dtype)
        if not all(name.strip() for name in self.models):
            raise ConfigError("models: use names, hub ids or folders")
        for alias in self.model_aliases:
            if not re.fullmatch(r"[^\s@]+", alias):
                raise ConfigError(f"model_aliases {alias!r}: use names without spaces or @")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"device {self.device!r}: use auto, cpu, cuda or cuda:N")


def check_dtype(name: str) -> None:
    """Raises ConfigError for a type that there is not."""
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r}: use {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")


def load_config(environ: Mapping[str, str], **overrides: Any) -> ServerConfig:
    """Defaults, then the TOML file of `WINNOW_CONFIG`, then `WINNOW_*`, then `overrides`.

    An override that is None counts as not given. Raises ConfigError for an unknown setting, a
    value of the wrong type or out of range, or a file that cannot be read.
    """
    given = _given(environ)
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


def _given(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings among the variables, by name; what an orchestrator put there is none."""
    given = {}
    for variable, value in environ.items():
        name = variable.removeprefix(PREFIX)
        if name == variable or INJECTED.fullmatch(name):
            continue
        address = ADDRESSES.get(name.rpartition("_")[2])
        if address is not None and address.fullmatch(value):
            if name == "PORT":
                logger.warning(
                    "WINNOW_PORT=%s is a link of an orchestrator and no port: ignored", value
                )
            continue
        given[name.lower()] = value
    return given


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"settings file {path}: {error}") from error


def _parse(name: str, value: Any, type_name: str) -> Any:
    if type_name == "ApiKeys":
        return _keys(name, value)
    shown = f"{PREFIX}{name.upper()}={str(value)!r}"
    if type_name in ("int", "float"):
        return _number(shown, value, type_name)
    if type_name == "bool":
        flag = value if isinstance(value, bool) else FLAGS.get(str(value).strip().lower())
        if flag is None:
            raise ConfigError(f"{shown}: use {', '.join(FLAGS)}")
        return flag
    if type_name == "tuple[str, ...]":
        return _list(shown, value)
    if type_name == "Path | None":
        if not isinstance(value, str | Path):
            raise ConfigError(f"{shown}: must be a path")
        return Path(value).expanduser() if str(value) else None
    if not isinstance(value, str):
        raise ConfigError(f"{shown}: must be a string")
    return value


def _number(shown: str, value: Any, type_name: str) -> int | float:
    whole = type_name == "int"
    wrong = ConfigError(f"{shown}: must be a {'whole ' if whole else ''}number")
    if isinstance(value, bool) or not isinstance(
        value, (int | str) if whole else (float | int | str)
    ):
        raise wrong
    try:
        return int(value) if whole else float(value)
    except ValueError:
        raise wrong from None


def _list(shown: str, value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"{shown}: must be a list of strings")
    return tuple(part.strip() for part in parts if part.strip())


def _keys(name: str, value: Any) -> ApiKeys:
    """Whatever is wrong with them, they are not in the sentence that says so."""
    if isinstance(value, ApiKeys):
        return value
    keys = _list(f"{PREFIX}{name.upper()}", value)
    if not keys:
        # As an empty secret arrives: it would open the service that somebody meant to close.
        raise ConfigError(f"{PREFIX}{name.upper()} is empty: leave it out to need no key")
    if keys[0].startswith("["):
        # A list as JSON would be keys that nobody meant, and nobody would get in.
        raise ConfigError(f"{PREFIX}{name.upper()}: part the keys by commas, without brackets")
    return ApiKeys.of(keys)


def _check_web(config: ServerConfig) -> None:
    for name in ("keep_alive_seconds", "header_seconds", "stall_seconds"):
        if not 0 < getattr(config, name) <= 86400:
            raise ConfigError(f"{name} {getattr(config, name)}: use more than 0 to 86400")
    if not re.fullmatch(r"((/[^/\s?#]+)+)?", config.root_path):
        raise ConfigError(f"root_path {config.root_path!r}: use a path as /stt, or nothing")
    for origin in config.cors_origins:
        if not ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"cors_origins {origin!r}: use origins as https://app.example:8443, or *"
            )


def _at_least(config: ServerConfig, least: int, *names: str) -> None:
    for name in names:
        if getattr(config, name) < least:
            raise ConfigError(f"{name} {getattr(config, name)}: must be at least {least}")
