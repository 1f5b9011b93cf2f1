"""uvicorn, with a drain: at a signal no new work is taken, and accepted work is finished."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from service.api.connections import Connection, Door
from service.api.live_connections import LiveConnection
from service.api.services import Services
from service.api.sockets import is_everywhere, listen, room_for_connections, url_of

logger = logging.getLogger("winnow.server")

MAX_MESSAGE_BYTES = 1024 * 1024  # of a WebSocket; half a minute of 16 kHz PCM
# Clients of OpenAI's append whole recordings at once: a minute of 24 kHz PCM in base64.
MAX_BYTES = {"/v1/realtime": 4 * 1024 * 1024}
LAST_ANSWERS_S = 2  # for answers to leave after the drain has ended
LAST_REFUSALS_S = 1.0  # who comes while the last work ends reads 503, not a reset connection


class DrainingServer(uvicorn.Server):
    """Serves one application until a signal, then drains it. A second signal ends the process."""

    def __init__(self, app: FastAPI, services: Services) -> None:
        config = services.config
        door = Door(
            config.header_seconds,
            config.stall_seconds,
            room_for_connections(config.max_connections),
        )
        super().__init__(
            uvicorn.Config(
                app,
                http=cast(type[asyncio.Protocol], partial(Connection, door=door)),
                ws=cast(
                    type[asyncio.Protocol],
                    partial(LiveConnection, stall_s=door.stall_s, max_bytes=MAX_BYTES),
                ),
                timeout_keep_alive=cast(int, config.keep_alive_seconds),  # of a call_later
                access_log=False,  # its lines hold query strings; `context` logs what is needed
                log_config=None,
                lifespan="on",
                timeout_graceful_shutdown=LAST_ANSWERS_S,
                server_header=False,
                ws_max_size=MAX_MESSAGE_BYTES,
                # A client that is held back is not read, so its pongs are not either; who is gone
                # is found by `live_idle_seconds`.
                ws_ping_timeout=None,
                # Recorded sound does not shrink by it, and it costs memory for each connection.
                ws_per_message_deflate=False,
            )
        )
        logging.getLogger("uvicorn.error").addFilter(_without_queries)
        self._services = services
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain_ends: float | None = None
        self._signalled = False
        self._announced = False

    @property
    def url(self) -> str:
        """Where it listens, with the port that was really taken."""
        return url_of(self._listening[0])

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises CannotListen before anything is loaded."""
        self._loop = asyncio.get_running_loop()
        config = self._services.config
        self._listening = sockets or listen(config.host, config.port)
        await super().serve(self._listening)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler. It may interrupt anything, locks held, so the loop does the work."""
        if self._signalled:
            os._exit(128 + sig)
        self._signalled = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.begin_drain)

    def begin_drain(self) -> None:
        """Refuses new work from now on, and ends the server when accepted work is done."""
        drain_s = self._services.config.drain_seconds
        logger.info("draining: no new work, up to %d s for what was accepted", drain_s)
        self._services.models.begin_drain()
        self._services.live.begin_drain()
        self._drain_ends = time.monotonic() + drain_s

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's heartbeat, ten times a second."""
        if not self._announced:
            self._announce()
        if self._services.models.failed_for_good:
            self.should_exit = True
        if self._drain_ends is not None and not self.should_exit:
            now = time.monotonic()
            if not self.server_state.tasks:
                self._drain_ends = min(self._drain_ends, now + LAST_REFUSALS_S)
            if now >= self._drain_ends:
                await self._services.models.drain(0)  # answers the rest
                self.should_exit = True
        return await super().on_tick(counter)

    def _announce(self) -> None:
        engine = self._services.models.first.engine
        if engine.state != "ready":
            return
        self._announced = True
        where = " (on every address)" if is_everywhere(self._listening[0]) else ""
        logger.info("%s", start_up_line(self._services, self.url + where))


def _without_queries(record: logging.LogRecord) -> bool:
    """Leaves out uvicorn's lines about WebSockets: they hold query strings, as its access log."""
    return '"WebSocket %s"' not in str(record.msg)


def start_up_line(services: Services, url: str) -> str:
    """What is served, on what, how and where."""
    first = services.models.first
    info, threads = first.engine.model.info, first.engine.num_threads
    further = ", ".join(name for name in services.models.known if name != first.name)
    weights = f", weights in {info.weight_dtype}" if info.weight_dtype != info.dtype else ""
    return (
        f"Winnow serves {info.name} ({info.num_parameters / 1e6:.1f}M parameters) "
        f"on {info.device} in {info.dtype}{weights}, {threads} thread{'s' * (threads != 1)}, "
        f"profiles {', '.join(first.pipeline.profiles)}, "
        f"{further and f'{further} when asked for, '}"
        f"at {url}"
    )
