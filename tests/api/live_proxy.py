"""A TCP proxy before a server, which breaks connections after a number of bytes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .harness import PATIENCE_S, Running

UNCUT = 1 << 40


@contextmanager
def breaking(server: Running, after_bytes: list[int], then: Running | None = None) -> Iterator[str]:
    """The URL of `/live` behind a proxy. Each connection is cut after so many bytes from the
    client; later ones, which may go to another server, are not cut."""
    cuts = [(server, limit) for limit in after_bytes]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=_accept, args=(listener, cuts, then or server))
        accepting.start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/live"
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(PATIENCE_S)
    assert not cuts, "the client never connected as often as it should have"


def _accept(listener: socket.socket, cuts: list[tuple[Running, int]], later: Running) -> None:
    carrying: list[threading.Thread] = []
    with suppress(OSError):
        while True:
            near = listener.accept()[0]
            server, limit = cuts.pop(0) if cuts else (later, UNCUT)
            host, port = server.url.removeprefix("http://").split(":")
            far = socket.create_connection((host, int(port)))
            carrying.append(threading.Thread(target=_carry, args=(near, far, limit)))
            carrying[-1].start()
    for thread in carrying:
        thread.join(PATIENCE_S)


def _carry(near: socket.socket, far: socket.socket, limit: int) -> None:
    with near, far:
        back = threading.Thread(target=_copy, args=(far, near, UNCUT))
        back.start()
        _copy(near, far, limit)
        back.join(PATIENCE_S)


def _copy(source: socket.socket, target: socket.socket, most: int) -> None:
    """Copies until `most` bytes or the end, and then ends both directions."""
    with suppress(OSError):
        while most > 0 and (data := source.recv(min(4096, most))):
            target.sendall(data)
            most -= len(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
