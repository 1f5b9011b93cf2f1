"""What HTTP expects of every route: HEAD, origins, encodings, a prefix, and absolute targets."""

from __future__ import annotations

from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import FOREIGN_ORIGIN, Answer, error_response

UNSUPPORTED = Answer(415, "invalid_request_error", "unsupported_content_encoding")
EXPOSED = "x-request-id, retry-after, x-winnow-warnings, openai-processing-ms"
METHODS = "GET, HEAD, POST, OPTIONS"
PREFLIGHT_S = "600"  # how long a browser need not ask again
DEFAULT_PORTS = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}
SCHEMES = ("http://", "https://")


class Origins:
    """Of web pages that may call; `*` is everybody's."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._origins = frozenset(origin.lower() for origin in origins)
        self.are_all = "*" in self._origins

    def __bool__(self) -> bool:
        return bool(self._origins)

    def allow(self, origin: str) -> bool:
        return self.are_all or origin.lower() in self._origins


class ShareAnswers:
    """ASGI middleware: lets the pages of these origins read every answer, whoever gives it."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._origins = Origins(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = Headers(scope=scope).get("origin") if scope["type"] == "http" else None
        readable_by = "*" if self._origins.are_all else None
        if origin is not None and readable_by is None and self._origins.allow(origin):
            readable_by = origin

        async def send_shared(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if not self._origins.are_all:
                    headers.add_vary_header("Origin")
                if readable_by is not None:
                    headers["access-control-allow-origin"] = readable_by
                    headers["access-control-expose-headers"] = EXPOSED
            await send(message)

        await self._app(scope, receive, send_shared)


class Manners:
    """ASGI middleware. `origins` are those of web pages that may call.

    A WebSocket is refused to pages of other origins, which no browser does for us; one without an
    Origin is no page's. A page of this host is at home.
    """

    def __init__(self, app: ASGIApp, root_path: str = "", origins: tuple[str, ...] = ()) -> None:
        self._app = app
        self._root_path = root_path
        self._origins = Origins(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        self._place(scope)
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if scope["type"] == "websocket":
            if origin is None or self._origins.allow(origin) or is_own(origin, headers):
                await self._app(scope, receive, send)
            else:
                await _forbidden(origin)(scope, receive, send)
            return
        refusal = self._refusal(scope, headers, origin)
        if refusal is not None:
            await refusal(scope, receive, send)
        elif scope["method"] == "HEAD":
            await self._head(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _place(self, scope: Scope) -> None:
        """The path as routes know it: a proxy may have left the prefix or taken it away."""
        path: str = scope["path"]
        if path.lower().startswith(SCHEMES):  # RFC 9112, 3.2.2
            scope["path"] = "/" + path.split("://", 1)[1].partition("/")[2]
        if self._root_path:
            scope["root_path"] = self._root_path

    def _refusal(self, scope: Scope, headers: Headers, origin: str | None) -> Response | None:
        """An answer that no route has to be asked for."""
        if self._root_path and scope["path"] == self._root_path:
            return Response(status_code=308, headers={"location": f"{self._root_path}/"})
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            return error_response(
                UNSUPPORTED,
                f"Content-Encoding {encoding}: send the recording as it is.",
                "content-encoding",
                {"accept-encoding": "identity"},
            )
        if (
            self._origins
            and origin is not None
            and scope["method"] == "OPTIONS"
            and "access-control-request-method" in headers
        ):
            return self._preflight(headers, origin)
        return None

    def _preflight(self, headers: Headers, origin: str) -> Response:
        if not self._origins.allow(origin):
            return _forbidden(origin)
        asked = headers.get("access-control-request-headers")
        allowed = {
            "access-control-allow-methods": METHODS,
            "access-control-max-age": PREFLIGHT_S,
            "vary": "Access-Control-Request-Headers",
        }
        if asked:
            allowed["access-control-allow-headers"] = asked
        if headers.get("access-control-request-private-network") == "true":
            allowed["access-control-allow-private-network"] = "true"
        return Response(status_code=204, headers=allowed)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As GET, without the body. The scope is the routes' own: it is given back as it came."""

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        scope["method"] = "GET"
        try:
            await self._app(scope, receive, send_head)
        finally:
            scope["method"] = "HEAD"


def is_own(origin: str, headers: Headers) -> bool:
    """Whether a page of this origin came from the host that is asked, a proxy's included.

    No page can choose either header of a WebSocket.
    """
    scheme, _, place = origin.lower().partition("://")
    hosts = (headers.get("host", ""), headers.get("x-forwarded-host", "").split(",")[0].strip())
    port = DEFAULT_PORTS.get(scheme, "")
    return bool(place) and place.removesuffix(port) in {
        host.lower().removesuffix(port) for host in hosts if host
    }


def _forbidden(origin: str) -> Response:
    message = f"Pages of {origin} may not call this service: cors_origins does not list it."
    return error_response(FOREIGN_ORIGIN, message)
