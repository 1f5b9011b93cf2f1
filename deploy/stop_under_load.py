"""Stops a service while requests are in flight, and counts how each of them ended.

    python deploy/stop_under_load.py http://127.0.0.1:8000 -- docker compose stop winnow

Every client sends one request after another, until one is refused. Exit status: 0 if all that
were in flight at the stop were answered, else 1. A request that begins later gets 503 while the
service drains, and no connection when it has gone.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import soundfile

SAMPLE = Path(__file__).resolve().parents[1] / "docs" / "samples" / "ljspeech-mix.opus"
TIMEOUT_S = 300.0


def recording(seconds: float) -> bytes:
    """The sample over and over, as a wav file."""
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, np.resize(samples, int(seconds * rate)), rate, format="WAV")
    return file.getvalue()


class Clients:
    """Clients in a closed loop, and how their requests ended."""

    def __init__(self, url: str, audio: bytes, number: int) -> None:
        self._url, self._audio = url, audio
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(number)]
        self._stopping = False
        self._in_flight = 0
        self.before: Counter[str] = Counter()  # ended before the stop
        self.in_flight: Counter[str] = Counter()  # began before it and ended after
        self.after: Counter[str] = Counter()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def announce_stop(self) -> int:
        """To be called just before the stop; returns how many requests are in flight."""
        with self._lock:
            self._stopping = True
            return self._in_flight

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        outcome = "200"
        while outcome == "200":
            with self._lock:
                began_after = self._stopping
                self._in_flight += 1
            outcome = self._post()
            with self._lock:
                self._in_flight -= 1
                later = self.after if began_after else self.in_flight
                (later if self._stopping else self.before)[outcome] += 1

    def _post(self) -> str:
        try:
            files = {"file": self._audio}
            answer = httpx.post(f"{self._url}/transcribe", files=files, timeout=TIMEOUT_S)
        except httpx.TransportError as error:
            return type(error).__name__
        return str(answer.status_code)


def seconds_until(ready: Callable[[], bool], begin: float) -> float:
    """Seconds from `begin` until it is not ready any more."""
    while ready():
        time.sleep(0.02)
    return time.monotonic() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="of the service")
    parser.add_argument("--in-flight", type=int, default=16, metavar="N", help="clients (16)")
    parser.add_argument("--seconds", type=float, default=30, help="of audio in a request (30)")
    parser.add_argument("--after", type=float, default=5, help="seconds of load, then stop (5)")
    parser.add_argument("command", nargs="+", help="what stops the service")
    args = parser.parse_args()

    def ready() -> bool:
        try:
            return httpx.get(f"{args.url}/readyz", timeout=TIMEOUT_S).status_code == 200
        except httpx.TransportError:
            return False

    if not ready():
        print(f"{args.url} is not ready", file=sys.stderr)
        return 1
    clients = Clients(args.url, recording(args.seconds), args.in_flight)
    clients.start()
    time.sleep(args.after)
    num_in_flight, begin = clients.announce_stop(), time.monotonic()
    with subprocess.Popen(args.command, stdout=sys.stderr) as stop:
        not_ready_s = seconds_until(ready, begin)
        status = stop.wait()
    stopped_s = time.monotonic() - begin
    clients.join()
    print(f"not ready {not_ready_s:.1f} s after the command, stopped after {stopped_s:.1f} s")
    for name, ends in (
        ("answered before it", clients.before),
        (f"{num_in_flight} in flight", clients.in_flight),
        ("sent after it", clients.after),
    ):
        print(f"{name + ':':20}", ", ".join(f"{n} x {end}" for end, n in sorted(ends.items())))
    unanswered = sum(n for end, n in clients.in_flight.items() if not end.isdigit())
    print(f"{unanswered} unanswered")
    return 1 if unanswered or status else 0


if __name__ == "__main__":
    sys.exit(main())
