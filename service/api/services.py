"""What handlers work with, and how one awaits work for a client that may leave."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import Receive

from service.api.pace import Uploads
from service.config import ServerConfig
from service.engine.intake import RETRY_AFTER_S
from service.errors import NotReady
from service.live.registry import LiveSessions
from service.metrics import Metrics
from service.models import Models, Served
from service.requests.windows import stop

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Services:
    """The parts of a running service."""

    config: ServerConfig
    models: Models
    live: LiveSessions
    metrics: Metrics
    uploads: Uploads

    def check_ready(self) -> None:
        """Raises NotReady, with a time to come back, unless the first model takes work."""
        engine = self.models.first.engine
        state = engine.state
        if state == "ready":
            return
        # A lost device is probed every few seconds; only a drain ends in another process.
        wait_s = float(self.config.drain_seconds) if state == "draining" else RETRY_AFTER_S
        raise NotReady(f"Winnow is not ready: {engine.reason or state}", wait_s)

    def admit(self, request: Request) -> None:
        """Raises NotReady, or QueueFull with the time of the request's turn, before it is read.

        Which model it asks for is not known yet: they share a device, and the first speaks for all.
        """
        self.check_ready()
        self.models.first.pipeline.admit(_caller(request))

    async def serve(self, request: Request, name: str | None) -> Served:
        """The model that is asked for by any of its names, the first one for None; loaded if it is
        not there. The body must have been read to its end.

        Raises ModelNotFound, NotReady, QueueFull, EngineError, and ClientDisconnect for a client
        that leaves meanwhile.
        """
        name = self.models.name_of(name)
        request.state.model = name
        if name == self.models.first.name:
            return self.models.first
        timeout_s = float(self.config.deadline_seconds)
        served = await while_connected(request, self.models.get(name, timeout_s))
        served.pipeline.admit(_caller(request))
        return served


def _caller(request: Request) -> str:
    """The same when a request is sent again: by its id, or else as far as one can tell."""
    headers, url = request.headers, request.url
    asked = headers.get("x-request-id") or (
        f"{url.path}?{url.query} {headers.get('content-length', '')}"
    )
    return f"{request.client.host if request.client else ''} {asked}"


def services_of(request: HTTPConnection) -> Services:
    """The services of the application that answers `request`."""
    services: Services = request.app.state.services
    return services


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work`, and cancels it if the client leaves first (then ClientDisconnect).

    The body must have been read to its end.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(until_disconnect(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await stop(gone)
        await stop(task)


async def until_disconnect(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
