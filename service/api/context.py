"""What every exchange gets: a request id, a time, a line of log, its series, and an end.

Plain ASGI, outside everything that can answer.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import traceback
import uuid
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.connections import FAULT
from service.api.errors import CLIENT_GONE_STATUS, INTERNAL_ERROR, error_response
from service.errors import InvalidRequest
from service.metrics import Metrics

logger = logging.getLogger("winnow.api")

SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
LINGER_S = 5.0  # how long an answer that came before the body's end waits for the sender to read it
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds: no line of log


class RequestContext:
    """ASGI middleware. Handlers read `request.state.request_id` and set `request.state.model` and
    `request.state.profile`.

    Both must be configured names: they become metric labels.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            log_unexpected(exchange.request_id, error)
            if exchange.status is not None:
                raise ConnectionAbortedError("the answer broke off") from None
            message = f"Something went wrong here. (request id {exchange.request_id})"
            response = error_response(INTERNAL_ERROR, message)
            await response(scope, exchange.receive, exchange.send)
        finally:
            self._record(scope, exchange)

    def _record(self, scope: Scope, exchange: _Exchange) -> None:
        endpoint = getattr(scope.get("route"), "path", "other")
        model, profile = scope["state"]["model"], scope["state"]["profile"]
        status = str(exchange.status or CLIENT_GONE_STATUS)
        seconds = (exchange.answered or time.perf_counter()) - exchange.started
        self._metrics.requests.labels(model, endpoint, profile, status).inc()
        self._metrics.request_seconds.labels(model, endpoint, profile).observe(seconds)
        if endpoint not in QUIET:
            logger.info(
                "%s %s %s model=%s profile=%s seconds=%.3f request_id=%s",
                *(scope["method"], endpoint, status, model or "-", profile or "-", seconds),
                exchange.request_id,
            )


class _Exchange:
    """One request and its answer, watched."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        asked = headers.get("x-request-id", "")
        self.request_id = asked if SANE_ID.fullmatch(asked) else uuid.uuid4().hex
        self.started = time.perf_counter()
        self.status: int | None = None
        self.answered: float | None = None
        self._state: dict[str, Any] = scope.setdefault("state", {})
        self._receive = receive
        self._send = send
        self._body_left = headers.get("content-length", "0") != "0" or (
            "transfer-encoding" in headers
        )
        self._state.update(request_id=self.request_id, model="", profile="")

    async def receive(self) -> Message:
        """Raises InvalidRequest where the rest of the body cannot be told from what follows it."""
        message = await self._receive()
        if fault := self._state.pop(FAULT, None):
            raise InvalidRequest(fault)
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._body_left = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.request_id
            headers["openai-processing-ms"] = str(
                round(1000 * (time.perf_counter() - self.started))
            )
            if self._body_left:
                headers["connection"] = "close"
        elif not message.get("more_body", False):
            self.answered = time.perf_counter()
        if self.answered is not None and self._body_left:
            # Closing on a sender that is still writing resets the connection, and it would never
            # read why: send the answer whole, then let the body run out for a while.
            await self._send({**message, "more_body": True})
            await self._discard_body()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _discard_body(self) -> None:
        try:
            async with asyncio.timeout(LINGER_S):
                while self._body_left:
                    with suppress(InvalidRequest):  # it was answered; what comes is dropped
                        await self.receive()
        except TimeoutError:
            return


def log_unexpected(request_id: str, error: Exception) -> None:
    """Logs where it happened. The error's own text may quote what was said, and is left out."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("unexpected %s, request_id=%s\n%s", type(error).__name__, request_id, frames)
