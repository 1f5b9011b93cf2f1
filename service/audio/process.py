"""The process of one audio worker, from outside: started, spoken to, ended."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import service
from service.audio.jobs import BEGUN, Job

_READ_BYTES = 64 * 1024
_MOST_LINE_BYTES = 1 << 20  # what a worker says is not believed blindly
# Where a process finds its libraries. Nothing else of the environment: it may hold secrets.
_ENVIRONMENT = ("DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH", "LANG", "PATH", "PYTHONHOME")


class WorkerProcess:
    """A running `service.audio.worker`. It has one job at a time, and is used by one task."""

    def __init__(self) -> None:
        """Raises OSError where the system has no room for another process."""
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._heard = b""
        self._descriptors: list[int] = []
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-P", "-m", "service.audio.worker"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # codecs write there what is in a file
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the service, which drains
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def begin(self, job: Job, recording: int, timeout_s: float) -> bool:
        """Hands a job over. False where the process is gone, or does not take it in time: that
        is not the recording's fault."""
        try:
            socket.send_fds(self._socket, [job.line()], [recording])
            return await self.line(timeout_s) == BEGUN
        except (OSError, EOFError):  # TimeoutError is an OSError
            return False

    async def line(self, timeout_s: float) -> bytes:
        """What it says next, without the end of the line.

        Raises TimeoutError, and EOFError where it ended or says what no worker says.
        """
        async with asyncio.timeout(timeout_s):
            while b"\n" not in self._heard:
                await self._readable()
                try:
                    data, descriptors, _, _ = socket.recv_fds(self._socket, _READ_BYTES, 1)
                except BlockingIOError:
                    continue
                except OSError:
                    raise EOFError from None
                self._descriptors += descriptors
                self._heard += data
                if not data or len(self._heard) > _MOST_LINE_BYTES:
                    raise EOFError
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def cpu_s(self) -> float:
        """Processor time that it has taken so far; 0 where the system does not say."""
        try:
            # Linux has a clock for each process, by this number (clock_getcpuclockid).
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return 0.0

    def take_descriptor(self) -> int:
        """One that came with what was said; the caller's to close. Raises ValueError."""
        if not self._descriptors:
            raise ValueError("no descriptor came")
        return self._descriptors.pop()

    async def ended(self) -> int:
        """The status of a process that is ending, as `subprocess` has it."""
        return await asyncio.to_thread(self._process.wait)

    def kill(self) -> threading.Thread:
        """Ends it now, whatever it does. The thread ends when it is gone."""
        self._process.kill()
        # Somebody has to ask for its status, and a process that reads from a dead disk is not gone
        # at once.
        waiting = threading.Thread(target=self._process.wait, daemon=True)
        waiting.start()
        return waiting

    def close(self) -> threading.Thread:
        """As `kill`, and lets go of what there is on this side. No task may be using it."""
        self._socket.close()
        while self._descriptors:
            os.close(self._descriptors.pop())
        return self.kill()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._socket, _wake, ready)
        try:
            await ready
        finally:
            loop.remove_reader(self._socket)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _environment() -> dict[str, str]:
    root = str(Path(service.__file__).resolve().parents[1])
    found = [os.path.abspath(path) for path in sys.path]
    return {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {
        "PYTHONPATH": os.pathsep.join(found if root in found else [root, *found]),
        "OPENBLAS_NUM_THREADS": "1",  # numpy's; it would start one for each core
    }
