"""API keys: who has none gets no further, before anything of the request is read."""

from __future__ import annotations

from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.errors import INVALID_KEY, error_response
from service.config import ApiKeys, ServerConfig
from service.errors import ConfigError

# To look at: what they ask for needs a key. So /explain is open, and what is posted there is not.
ALWAYS_OPEN = frozenset({"/", "/explain", "/healthz", "/readyz"})
READING = ("GET", "HEAD")
# A browser's WebSocket has no headers of its own choice: OpenAI's client sends the key so.
SUBPROTOCOL = "openai-insecure-api-key."


class RequireKey:
    """ASGI middleware for every route but the open ones. It goes inside what knows the prefix."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, open_paths: frozenset[str]) -> None:
        self._app = app
        self._keys = keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_open(scope) or self._has_key(scope):
            await self._app(scope, receive, send)
            return
        message = (
            "No valid API key. Send one as 'Authorization: Bearer KEY', a browser's WebSocket as "
            f"the subprotocol '{SUBPROTOCOL}KEY'."
        )
        challenge = {"www-authenticate": "Bearer"}
        await error_response(INVALID_KEY, message, headers=challenge)(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if scope["type"] == "http" and scope["method"] not in READING:
            return False
        return path.removeprefix(scope.get("root_path", "")) in self._open_paths

    def _has_key(self, scope: Scope) -> bool:
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._keys.has(key.strip()):
            return True
        offered: list[str] = scope.get("subprotocols", [])
        return any(
            self._keys.has(one.removeprefix(SUBPROTOCOL))
            for one in offered
            if one.startswith(SUBPROTOCOL)
        )


def keys_of(config: ServerConfig) -> ApiKeys:
    """All keys that were set. Raises ConfigError for a file that cannot be used."""
    path = config.api_keys_file
    return config.api_keys if path is None else config.api_keys | read_keys(path)


def read_keys(path: Path) -> ApiKeys:
    """One key a line; what stands after it, and lines that begin so, are comments with a `#`.

    Raises ConfigError for a file that cannot be read or has no key; no message has one in it.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"api_keys_file {path}: {reason}") from None
    keys = []
    for number, line in enumerate(lines, start=1):
        key, *rest = line.split(maxsplit=1) or [""]
        if not key or key.startswith("#"):
            continue
        if rest and not rest[0].startswith("#"):
            raise ConfigError(f"api_keys_file {path}: line {number} has more than one key")
        keys.append(key)
    if not keys:
        raise ConfigError(f"api_keys_file {path}: no key in it; leave it out to need none")
    return ApiKeys.of(keys)


def open_paths(config: ServerConfig) -> frozenset[str]:
    """What is answered to anybody."""
    return ALWAYS_OPEN | {"/metrics"} if config.metrics_open else ALWAYS_OPEN
