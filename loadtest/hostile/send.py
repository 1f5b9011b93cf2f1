"""One trial over one connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from loadtest.hostile.answers import Outcome, Received, answer_in, fault_in, settled, status_of
from loadtest.hostile.trials import Due, Trial

GRACE_S = 0.5  # for an answer to what is no whole request, before the client says it has no more


async def carry_out(trial: Trial, host: str, port: int, limit_s: float) -> Outcome:
    """Sends it, waits `limit_s` at most for what is owed, and judges what came."""
    began = time.monotonic()
    got = await _exchange(trial, host, port, limit_s)
    return Outcome(
        number=trial.number,
        kind=trial.kind,
        what=trial.what,
        status=status_of(got),
        seconds=got.seconds,
        fault=fault_in(trial, got),
        began=began,
        ended=time.monotonic(),
    )


async def _exchange(trial: Trial, host: str, port: int, limit_s: float) -> Received:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(limit_s):
            transport, line = await loop.create_connection(_Line, host, port)
    except TimeoutError:
        return Received(b"", ended=False, late=True, seconds=limit_s)
    except OSError:
        return Received(b"", ended=True, late=False, seconds=0.0, refused=True)
    try:
        late = not await _sent(trial, transport, line, limit_s)
        sent = time.monotonic()
        if trial.due is Due.NOTHING:
            late = False
        elif not late:
            late = not await _waited(trial, transport, line, limit_s)
        content = bytes(line.received)
        return Received(content, line.ended, late, time.monotonic() - sent)
    finally:
        if not line.ended:
            transport.abort()


async def _sent(trial: Trial, transport: asyncio.Transport, line: _Line, limit_s: float) -> bool:
    """False where the other side reads nothing for `limit_s` seconds and says nothing."""
    for send in trial.sends:
        if line.ended:
            break
        transport.write(send.data)
        if not await line.until(lambda: line.ended or line.writable, limit_s):
            # Who has answered already need not read the rest.
            return settled(bytes(line.received), line.ended)
        if send.answered and not await line.until(line.has_answer, limit_s):
            return False
        if send.pause_s:
            await asyncio.sleep(send.pause_s)
    return True


async def _waited(trial: Trial, transport: asyncio.Transport, line: _Line, limit_s: float) -> bool:
    def done() -> bool:
        return settled(bytes(line.received), line.ended)

    if trial.due is Due.END and not await line.until(done, GRACE_S):
        transport.write_eof()
    return await line.until(done, limit_s)


class _Line(asyncio.Protocol):
    """A connection: what was received, whether it has ended, and whether it takes more."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = False
        self.writable = True
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Whether it became true in time."""
        try:
            async with asyncio.timeout(limit_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def has_answer(self) -> bool:
        return self.ended or answer_in(bytes(self.received), ended=False) is not None

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self._changed.set()

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._changed.set()
