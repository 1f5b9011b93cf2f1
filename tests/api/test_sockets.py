"""Where the service listens, and what is said where it cannot."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.sockets import listen, url_of
from service.cli import main
from service.errors import CannotListen

from .conftest import StartServer


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.mark.parametrize("kind", ["same", "any", "::"])
def test_a_port_in_use_is_one_sentence(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    host = {"same": "127.0.0.1", "any": "0.0.0.0", "::": "::"}[kind]
    if kind == "::" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--model", "fake", "--host", host, "--port", port]) == 1
    said = capfd.readouterr().err.strip()
    assert said.startswith("winnow: cannot listen on ")
    assert f":{port}: the port is in use" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("no-such-host.invalid", "the host is not known"),
        ("300.300.300.300", "the host is not known"),
        ("192.0.2.1", "does not have the address"),
        ("a" * 80, "the host is not known"),
    ],
)
def test_a_host_that_is_not_here_is_one_too(
    host: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--model", "fake", "--host", host]) == 1
    said = capfd.readouterr().err.strip()
    assert says in said
    assert len(said.splitlines()) == 1


def test_a_port_for_others_is_one_too() -> None:
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if os.geteuid() == 0 or not first.exists() or int(first.read_text()) < 2:
        pytest.skip("this user may use every port")
    with pytest.raises(CannotListen, match="may not use the port"):
        listen("127.0.0.1", 1)


@ipv6
def test_two_colons_are_every_address_of_both_families(server: StartServer) -> None:
    one = server(host="::")
    port = one.url.rsplit(":", 1)[1]
    assert one.url == f"http://localhost:{port}"
    for host in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"http://{host}:{port}/healthz").status_code == 200


@ipv6
def test_an_address_of_one_family_is_that_family_s(server: StartServer) -> None:
    one = server(host="::1")
    assert one.url.startswith("http://[::1]:")
    with pytest.raises(httpx.ConnectError):
        httpx.get(one.url.replace("[::1]", "127.0.0.1"))


def test_every_address_is_shown_as_one_that_can_be_opened(server: StartServer) -> None:
    one = server(host="0.0.0.0")
    assert one.url.startswith("http://127.0.0.1:")
    assert one.client.get("/healthz").status_code == 200


def test_answers_leave_without_delay(server: StartServer) -> None:
    one = server()
    assert one.client.get("/healthz").status_code == 200  # and stays connected
    (connection,) = one.server.server_state.connections
    transport: Any = connection.transport
    accepted = transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_name_with_several_addresses_has_one_port() -> None:
    bound = listen("localhost", 0)
    try:
        assert len({one.getsockname()[1] for one in bound}) == 1
        assert url_of(bound[0]).startswith(("http://127.0.0.1:", "http://[::1]:"))
    finally:
        for one in bound:
            one.close()
