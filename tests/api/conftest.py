"""The `server` fixture: real servers, started with what a test needs and ended after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from service.model.protocol import SpeechModel

from .harness import Running, running


class StartServer(Protocol):
    """Starts a server: `load` makes its model, `settings` are those of ServerConfig."""

    def __call__(
        self, load: Callable[[], SpeechModel] | None = None, *, wait: bool = True, **settings: Any
    ) -> Running: ...


@pytest.fixture
def server() -> Iterator[StartServer]:
    with ExitStack() as stack:

        def start(
            load: Callable[[], SpeechModel] | None = None, *, wait: bool = True, **settings: Any
        ) -> Running:
            return stack.enter_context(running(load, wait=wait, **settings))

        yield start


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """One server for the tests of a module that leave it as it was."""
    with running(max_upload_mb=1, max_audio_seconds=60) as one:
        yield one
