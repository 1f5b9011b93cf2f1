"""The sockets the service listens on, and what to call them."""

from __future__ import annotations

import errno
import logging
import resource
import socket
from contextlib import suppress
from typing import Any

from service.errors import CannotListen

logger = logging.getLogger("winnow.server")

EVERY_IPV6 = "::"
LOOPBACK = {"0.0.0.0": "127.0.0.1", EVERY_IPV6: "localhost"}
RESERVED_FILES = 512  # descriptors that are left for recordings, libraries and the log
WANTED_FILES = 65_536
SENTENCES = {
    errno.EADDRINUSE: "the port is in use; stop what listens there, or choose another with --port",
    errno.EACCES: "this user may not use the port; choose one above 1023 with --port",
    errno.EADDRNOTAVAIL: "this machine does not have the address; choose another with --host",
}
MISSING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # of an address among several


def listen(host: str, port: int) -> list[socket.socket]:
    """Bound to every address that the host's name has; `::` takes IPv4 as well.

    Port 0 takes a free one, the same for all. Raises CannotListen.
    """
    addresses = _addresses(host, port)
    bound: list[socket.socket] = []
    last: OSError | None = None
    for family, address in addresses:
        if port == 0 and bound:
            address = (address[0], bound[0].getsockname()[1], *address[2:])
        try:
            bound.append(_bind(family, address, both=host == EVERY_IPV6))
        except OSError as error:
            last = error
            if error.errno not in MISSING:
                break
    if bound and (last is None or last.errno in MISSING):
        return bound
    for one in bound:
        one.close()
    assert last is not None
    why = SENTENCES.get(last.errno or 0, last.strerror or str(last))
    raise CannotListen(f"cannot listen on {_shown(host)}:{port}: {why}") from None


def url_of(listening: socket.socket) -> str:
    """What to open in a browser on this machine."""
    host, port = listening.getsockname()[:2]
    return f"http://{_shown(LOOPBACK.get(host, host))}:{port}"


def is_everywhere(listening: socket.socket) -> bool:
    """Whether other machines' packets reach it at whatever address this one has."""
    return listening.getsockname()[0] in LOOPBACK


def room_for_connections(wanted: int) -> int:
    """How many connections the process can hold, after asking the system for as many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < goal:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
            soft = goal
    if soft == resource.RLIM_INFINITY:
        return wanted
    room = min(wanted, max(soft - RESERVED_FILES, soft // 2))
    if room < wanted:
        logger.warning(
            "max_connections is %d, but this process may have %d files open: %d connections",
            *(wanted, soft, room),
        )
    return room


def _addresses(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    if host == EVERY_IPV6 and not socket.has_ipv6:
        host = "0.0.0.0"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise CannotListen(
            f"cannot listen on {_shown(host)}:{port}: the host is not known; choose another with "
            "--host"
        ) from None
    return list(dict.fromkeys((int(family), address) for family, *_, address in found))


def _bind(family: int, address: tuple[Any, ...], *, both: bool) -> socket.socket:
    # asyncio sends small answers without delay on sockets that say they are TCP's.
    one = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        one.bind(address)
        # Listening already: whoever else has the port, by another kind of address too, is found
        # here rather than when the model is loaded.
        one.listen()
        one.setblocking(False)
    except OSError:
        one.close()
        raise
    return one


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
