"""A process that decodes what strangers send: `python -m service.audio.worker`, by `workers`.

It may crash, hang or swell, and takes nobody along. Jobs come over a socket that is its standard
input, a line of JSON each with the descriptor of a recording. What goes back, line by line: "+"
once a job is begun, "." while it goes on, and one line of JSON, with the descriptor of the
samples where there are any. It ends with whoever holds the socket's other end.

It imports neither torch nor a model, so that one starts in a fraction of a second.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from service.audio.decode import decode, decode_channels
from service.audio.jobs import ALIVE, BEGUN, Job, Reply
from service.audio.shared import SharedReel, anonymous_file
from service.errors import InvalidAudio, InvalidRequest, TooLarge
from service.types import SAMPLE_RATE, Samples

# Processor time that a file may take for each second of sound, and for each MB to find out what is
# in it, beside what a job grants. An ordinary file takes a tenth of either.
_CPU_S_PER_S, _CPU_S_PER_MB = 0.1, 0.02
MEMORY_MB = 256  # beside the samples; the index of a day of m4a has half of it
_KEPT_MB = 24  # more than at its start, and it makes room for another
_ALIVE_EVERY_S = 1.0
_TICK_S = 0.001
_LINE_BYTES = 4096
_READ_BYTES = 64 * 1024


def main() -> None:
    """Decodes until the other end is gone."""
    jobs = socket.socket(fileno=0)
    _be_bounded()
    most_kept = _resident_bytes() + _KEPT_MB * 2**20
    while (received := _next_job(jobs)) is not None:
        job, recording = received
        samples = anonymous_file()
        jobs.sendall(BEGUN + b"\n")
        free_cpu_s = job.free_cpu_s + _CPU_S_PER_MB * os.fstat(recording).st_size / 2**20
        reel = _WatchedReel(jobs, samples, job.max_seconds, free_cpu_s)
        reply = _answer(job, recording, reel)
        spent = reply.swollen or _resident_bytes() > most_kept
        line = replace(reply, spent=spent).line()
        sent = socket.send_fds(jobs, [line], [samples])
        jobs.sendall(line[sent:])
        os.close(samples)
        os.close(recording)


def _next_job(jobs: socket.socket) -> tuple[Job, int] | None:
    """A job and its recording; None where nobody is left to send any."""
    line, fds = b"", list[int]()
    while not line.endswith(b"\n"):
        data, more, _, _ = socket.recv_fds(jobs, _LINE_BYTES, 1)
        if not data:
            return None
        line, fds = line + data, fds + more
    return Job(**json.loads(line)), fds[0]


def _answer(job: Job, recording: int, reel: _WatchedReel) -> Reply:
    try:
        with open(recording, "rb", buffering=_READ_BYTES, closefd=False) as source:
            source.seek(0)
            if job.split_channels:
                channels = decode_channels(source, job.max_seconds, reel)
            else:
                channels = [decode(source, job.max_seconds, reel)]
        return Reply(len(channels), len(channels[0].samples), channels[0].losses)
    except (InvalidAudio, InvalidRequest, TooLarge) as error:
        if isinstance(error.__cause__, MemoryError):
            return _SWOLLEN
        return Reply(
            error=type(error).__name__, message=str(error), param=getattr(error, "param", None)
        )
    except MemoryError:
        return _SWOLLEN
    except Exception as error:
        # Without the error's own text, which may quote the recording.
        trace = "".join([f"{type(error).__name__}\n", *traceback.format_tb(error.__traceback__)])
        return Reply(
            error=InvalidAudio.__name__, message="The audio file cannot be decoded.", trace=trace
        )
    finally:
        reel.stop()


_SWOLLEN = Reply(
    error=TooLarge.__name__,
    message=f"Decoding the recording takes more than {MEMORY_MB} MB beside its samples.",
    swollen=True,
)


class _WatchedReel(SharedReel):
    """Lets its process live as long as samples come: each block grants it more processor time,
    and now and then says that it is alive. The system ends a process whose time is over, whatever
    it is doing."""

    def __init__(self, jobs: socket.socket, fd: int, max_seconds: float, free_cpu_s: float) -> None:
        super().__init__(fd, max_seconds)
        self._jobs = jobs
        self._last_said_s = 0.0
        self._free_cpu_s = free_cpu_s
        self._ends_s = time.process_time()
        self._grant(free_cpu_s)

    def append(self, block_NC: Samples) -> None:
        super().append(block_NC)
        self._grant(_CPU_S_PER_S * block_NC.size / SAMPLE_RATE)
        if (now := time.monotonic()) - self._last_said_s >= _ALIVE_EVERY_S:
            self._last_said_s = now
            self._jobs.sendall(ALIVE + b"\n")

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _grant(self, cpu_s: float) -> None:
        now = time.process_time()
        self._ends_s = min(self._ends_s + cpu_s, now + self._free_cpu_s)
        signal.setitimer(signal.ITIMER_PROF, max(self._ends_s - now, _TICK_S))


def _be_bounded() -> None:
    """Sets the limits that hold for whatever is decoded. What a system lacks is left out."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold somebody's voice
    if sys.platform != "linux":
        return
    status = Path("/proc/self/status").read_text()
    held_kb = next(line.split()[1] for line in status.splitlines() if line.startswith("VmData"))
    most = int(held_kb) * 1024 + MEMORY_MB * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with suppress(OSError):
        # Where the system is out of memory, one recording fails and not the service.
        Path("/proc/self/oom_score_adj").write_text("500")


def _resident_bytes() -> int:
    """0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
