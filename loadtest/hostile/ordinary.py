"""An ordinary request, again and again, while others misbehave."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from loadtest.hostile.trials import Target

SAMPLE = Path(__file__).resolve().parents[2] / "docs" / "samples" / "ljspeech.flac"


@dataclass(frozen=True, slots=True)
class Asked:
    """`began`: a reading of `time.monotonic()`. `text` None: it failed, `problem` says how."""

    began: float
    seconds: float
    text: str | None
    problem: str = ""


class Ordinary:
    """Someone who has a short recording transcribed every `every_s` seconds, on a thread."""

    def __init__(
        self, host: str, port: int, target: Target, every_s: float, limit_s: float
    ) -> None:
        self._host, self._port, self._target = host, port, target
        self._every_s, self._limit_s = every_s, limit_s
        self._content = SAMPLE.read_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.asked: list[Asked] = []

    def ask(self) -> Asked:
        """Once."""
        began = time.monotonic()
        text, problem = None, ""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._limit_s)
        try:
            path = f"{self._target.prefix}/transcribe"
            headers = {"Content-Type": "audio/flac", "Connection": "close"}
            connection.request("POST", path, self._content, headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                text = str(json.loads(body)["text"])
            else:
                problem = f"{answer.status} {body[:200].decode(errors='replace')}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem = repr(error)
        finally:
            connection.close()
        return Asked(began, time.monotonic() - began, text, problem)

    def start(self) -> None:
        """Begins to ask."""
        self._thread.start()

    def stop(self) -> list[Asked]:
        """All that was asked."""
        self._over.set()
        self._thread.join()
        return self.asked

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self.asked.append(self.ask())
