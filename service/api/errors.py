"""Every exception that may leave a handler, mapped to its HTTP answer once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.api.services import services_of
from service.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineError,
    InvalidAudio,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    QueueFull,
    StorageFull,
    TooLarge,
    TooSlow,
    WinnowError,
)

CLIENT_GONE_STATUS = 499  # nobody reads it; it is what logs and metrics say


@dataclass(frozen=True, slots=True)
class Answer:
    """How one class of error looks from outside: status, and OpenAI's `type` and `code`."""

    status: int
    type: str
    code: str


INVALID_REQUEST = Answer(400, "invalid_request_error", "invalid_request")
INVALID_KEY = Answer(401, "invalid_request_error", "invalid_api_key")
FOREIGN_ORIGIN = Answer(403, "invalid_request_error", "origin_not_allowed")
REQUEST_TIMEOUT = Answer(408, "invalid_request_error", "request_timeout")
BUSY = Answer(503, "server_error", "too_many_connections")
INTERNAL_ERROR = Answer(500, "server_error", "internal_error")

ANSWERS: dict[type[WinnowError], Answer] = {
    InvalidAudio: Answer(400, "invalid_request_error", "invalid_audio"),
    InvalidRequest: INVALID_REQUEST,
    ModelNotFound: Answer(404, "invalid_request_error", "model_not_found"),
    TooLarge: Answer(413, "invalid_request_error", "payload_too_large"),
    TooSlow: REQUEST_TIMEOUT,
    StorageFull: Answer(507, "server_error", "storage_full"),
    QueueFull: Answer(429, "rate_limit_error", "queue_full"),
    NotReady: Answer(503, "server_error", "not_ready"),
    # Reaches a client that is still there only when the service stops under its request.
    Cancelled: Answer(503, "server_error", "not_ready"),
    DeadlineExceeded: Answer(504, "server_error", "deadline_exceeded"),
    EngineError: Answer(500, "server_error", "engine_error"),
}
ROUTING = {
    404: Answer(404, "invalid_request_error", "not_found"),
    405: Answer(405, "invalid_request_error", "method_not_allowed"),
    # What the connection says of a request that cannot be read.
    431: Answer(431, "invalid_request_error", "headers_too_large"),
}


def error_response(
    answer: Answer, message: str, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An answer in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""
    return JSONResponse(error_body(answer, message, param), answer.status, headers)


def error_body(answer: Answer, message: str, param: str | None = None) -> dict[str, Any]:
    """OpenAI's shape of an error, in an answer or in an event."""
    return {"error": error_object(answer, message, param)}


def error_object(answer: Answer, message: str, param: str | None = None) -> dict[str, str | None]:
    """What stands under `error` in OpenAI's shape."""
    return {"message": message, "type": answer.type, "param": param, "code": answer.code}


def answer_to(error: Exception) -> Answer:
    """How this error looks from outside."""
    return next((ANSWERS[c] for c in type(error).__mro__ if c in ANSWERS), INTERNAL_ERROR)


def told(error: Exception, request_id: str) -> tuple[Answer, str]:
    """How a WinnowError is answered, and what is said of it; any other's text stays here."""
    answer = answer_to(error)
    message = str(error)
    if answer is INTERNAL_ERROR:
        message = "Winnow could not answer this request."
    if answer.status == 500:
        message = f"{message} (request id {request_id})"
    return answer, message


def install(app: FastAPI) -> None:
    """Makes every error that handlers and routing raise answer in OpenAI's shape."""
    app.add_exception_handler(WinnowError, _on_winnow_error)
    app.add_exception_handler(HTTPException, _on_routing_error)
    app.add_exception_handler(ClientDisconnect, _on_client_gone)
    no_route = app.router.default

    async def no_route_told(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # which would get a 403 that says nothing
            message = f"WebSocket {scope['path']}: Not Found"
            await error_response(ROUTING[404], message)(scope, receive, send)
        else:
            await no_route(scope, receive, send)

    app.router.default = no_route_told


async def _on_winnow_error(request: Request, error: Exception) -> Response:
    answer, message = told(error, request.state.request_id)
    headers = {}
    if answer.status in (429, 503, 507):
        headers["retry-after"] = str(max(1, math.ceil(getattr(error, "retry_after_s", 1.0))))
    return error_response(answer, message, getattr(error, "param", None), headers)


async def _on_routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = ROUTING.get(error.status_code, INVALID_REQUEST)
    message = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"
    return error_response(answer, message, headers=headers)


async def _on_client_gone(request: Request, error: Exception) -> Response:
    services_of(request).metrics.cancelled.labels("client_gone").inc()
    return Response(status_code=CLIENT_GONE_STATUS)
