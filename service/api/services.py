"""What handlers work with, and how one runs a transcription for a client that may leave."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, BinaryIO

from fastapi import Request
from starlette.requests import ClientDisconnect, HTTPConnection

from service.config import ServerConfig
from service.engine.engine import Engine
from service.engine.intake import RETRY_AFTER_S
from service.errors import NotReady
from service.live.registry import LiveSessions
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.types import TranscribeRequest, Transcript


@dataclass(frozen=True, slots=True, eq=False)
class Services:
    """The parts of a running service."""

    config: ServerConfig
    engine: Engine
    pipeline: Pipeline
    live: LiveSessions
    metrics: Metrics

    def check_ready(self) -> None:
        """Raises NotReady, with a time to come back, unless the engine takes work."""
        state = self.engine.state
        if state == "ready":
            return
        # A lost device is probed every few seconds; only a drain ends in another process.
        wait_s = float(self.config.drain_seconds) if state == "draining" else RETRY_AFTER_S
        raise NotReady(f"Winnow is not ready: {self.engine.reason or state}", wait_s)


def services_of(request: HTTPConnection) -> Services:
    """The services of the application that answers `request`."""
    services: Services = request.app.state.services
    return services


async def transcribe_while_connected(
    request: Request, audio: BinaryIO, asked: TranscribeRequest
) -> Transcript:
    """Runs the pipeline, and cancels it if the client leaves first (then ClientDisconnect).

    The body must have been read to its end.
    """
    work = asyncio.create_task(services_of(request).pipeline.transcribe(audio, asked))
    gone = asyncio.create_task(_until_disconnect(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        await _stop(gone)
        await _stop(work)


async def _until_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # read, or asyncio reports it as forgotten
