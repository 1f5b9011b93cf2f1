"""A transcript as server-sent events: OpenAI's, as the windows of a recording are done.

https://platform.openai.com/docs/api-reference/audio/transcript-text-delta-event
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, BinaryIO

from fastapi import Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.context import log_unexpected
from service.api.errors import error_body, told
from service.api.services import services_of, until_disconnect, while_connected
from service.errors import WinnowError
from service.pipeline import Pipeline
from service.requests.windows import stop
from service.types import Progress, TranscribeRequest, Transcript

PING_S = 5.0  # proxies cut a connection that is silent, the strictest after 10 to 30 s
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx, and those that follow it, pass events on at once
}

Event = dict[str, Any]
Describe = Callable[[Progress], Event]
Summarise = Callable[[Transcript], Event]


async def open_stream(
    request: Request,
    pipeline: Pipeline,
    audio: BinaryIO,
    asked: TranscribeRequest,
    describe: Describe,
    summarise: Summarise,
) -> Response:
    """The events of a transcription that was accepted; `audio` is not needed any more.

    `describe` adds to each delta, `summarise` is the body of the last event. Raises what
    `Pipeline.transcribe` does before the first window is done, so that it can be an HTTP status.
    """
    parts = pipeline.stream(audio, asked)
    await while_connected(request, _next(parts))

    def event(part: Progress) -> Event | None:
        if part.transcript is not None:
            return {"type": "transcript.text.done", **summarise(part.transcript)}
        if not part.text:
            return None
        return {"type": "transcript.text.delta", "delta": part.text, **describe(part)}

    return EventStream(request, parts, event)


async def _next(parts: AsyncGenerator[Progress]) -> Progress | None:
    return await anext(parts, None)


class EventStream(Response):
    """Sends an event for each part, comments where none comes, and stops when the client leaves.

    What fails on the way is an event `error` in OpenAI's shape.
    """

    def __init__(
        self,
        request: Request,
        parts: AsyncGenerator[Progress],
        event: Callable[[Progress], Event | None],
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._metrics = services_of(request).metrics
        self._request_id: str = request.state.request_id
        self._parts = parts
        self._event = event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(until_disconnect(receive))
        try:
            async with aclosing(self._parts):
                start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(start)
                await self._send_all(gone, send)
        finally:
            await stop(gone)

    async def _send_all(self, gone: asyncio.Task[None], send: Send) -> None:
        try:
            async with aclosing(self._texts(gone)) as texts:
                async for text in texts:
                    await _send(send, text)
        except Exception as error:
            if not isinstance(error, WinnowError):
                log_unexpected(self._request_id, error)
            body = error_body(*told(error, self._request_id))
            await _send(send, f"event: error\n{_data(body)}")
        if gone.done():
            self._metrics.cancelled.labels("client_gone").inc()
        await _send(send, "", more=False)

    async def _texts(self, gone: asyncio.Task[None]) -> AsyncGenerator[str]:
        """Events, and a comment wherever there was none for a while, until the client leaves."""
        while not gone.done():
            following = asyncio.create_task(_next(self._parts))
            try:
                while not (await _first_of(following, gone)):
                    yield ": ping\n\n"
                if not following.done():
                    return
                part = following.result()
            finally:
                await stop(following)
            if part is None:
                return
            if event := self._event(part):
                yield _data(event)


async def _first_of(*tasks: asyncio.Task[Any]) -> set[asyncio.Task[Any]]:
    """The tasks that are done; none of them after `PING_S` without one."""
    done, _ = await asyncio.wait(tasks, timeout=PING_S, return_when=asyncio.FIRST_COMPLETED)
    return done


def _data(event: Event) -> str:
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n"


async def _send(send: Send, text: str, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": more})
