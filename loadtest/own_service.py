"""A service of our own, for a run that names no host."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from service.errors import WinnowError

READY_S = 600.0  # a large checkpoint loads for minutes
STOP_S = 60.0


class ServiceFailed(WinnowError):
    """The service did not get ready, or is not there."""


@contextmanager
def own_service() -> Iterator[str]:
    """Starts `python -m service serve` on a free port, and yields its URL once it is ready.

    Its settings are those of the environment (WINNOW_MODEL, ...); whisper-base if there
    are none. It is stopped when the context ends. Raises ServiceFailed with the end of its log.
    """
    url = f"http://127.0.0.1:{(port := _free_port())}"
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "service", "serve"]
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us: the last answers are still wanted
        )
        try:
            _wait_ready(url, process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def check_ready(url: str) -> None:
    """Raises ServiceFailed unless the service at `url` takes work."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10):
            return
    except (OSError, ValueError) as error:
        raise ServiceFailed(f"{url}: no service is ready there ({error})") from error


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    give_up = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < give_up:
        try:
            check_ready(url)
        except ServiceFailed:
            time.sleep(0.2)
        else:
            return
    log.seek(0)
    last = log.read().decode(errors="replace")[-2000:]
    raise ServiceFailed(f"the service did not get ready:\n{last}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
