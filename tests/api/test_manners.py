"""HEAD, origins, encodings and prefixes, on every route alike."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.registry import Collector
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from service.config import ApiKeys

from .conftest import StartServer
from .harness import Running, refused, running, silence, voice
from .live_client import live

APP = "https://app.example"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, x-stainless-lang",
}


@pytest.fixture(scope="module")
def listed() -> Iterator[Running]:
    """A server that two origins may call."""
    with running(cors_origins=(APP, "http://localhost:5173")) as one:
        yield one


@pytest.mark.parametrize(
    "path",
    ["/", "/healthz", "/readyz", "/metrics", "/profiles", "/v1/models", "/openapi.json", "/none"],
)
def test_head_is_get_without_the_body(shared: Running, path: str) -> None:
    head, get = shared.client.head(path), shared.client.get(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    for name in ("content-type", "content-length"):
        if path != "/metrics":  # which counts the requests themselves
            assert head.headers[name] == get.headers[name]
    assert shared.client.get("/healthz").status_code == 200  # on the same connection


def test_head_of_what_has_no_get(shared: Running) -> None:
    head = shared.client.head("/transcribe")
    assert (head.status_code, head.headers["allow"], head.content) == (405, "POST", b"")
    assert shared.client.post("/healthz").headers["allow"] == "GET, HEAD"


def test_head_is_counted_as_its_route(server: StartServer) -> None:
    one = server()
    one.client.head("/profiles")
    labels = {"endpoint": "/profiles", "profile": "", "status": "200"}
    one.eventually(lambda: one.metric("winnow_requests_total", **labels) == 1)


def test_head_is_what_the_log_says(server: StartServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "winnow.api")
    one = server()
    one.client.head("/profiles")
    one.eventually(lambda: any("HEAD /profiles 200" in line for line in caplog.messages))


def test_no_origin_is_let_in_unless_it_is_set(shared: Running) -> None:
    answer = shared.client.options("/transcribe", headers={"origin": APP, **PREFLIGHT})
    assert answer.status_code == 405
    answer = shared.client.get("/profiles", headers={"origin": APP})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "vary" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/transcribe", "/v1/models"])
def test_a_page_of_a_listed_origin_may_call(listed: Running, path: str) -> None:
    answer = listed.client.options(path, headers={"origin": APP, **PREFLIGHT})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-headers"] == "authorization, x-stainless-lang"
    assert "POST" in answer.headers["access-control-allow-methods"]
    for status in (200, 400):
        audio = silence(1) if status == 200 else b"none"
        answer = listed.client.post(
            "/transcribe", files={"file": audio}, headers={"origin": APP.upper()}
        )
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == APP.upper()
        exposed = answer.headers["access-control-expose-headers"]
        assert {"x-request-id", "retry-after", "x-winnow-warnings"} <= set(exposed.split(", "))
        assert answer.headers["vary"] == "Origin"


class Broken(Collector):
    """What /metrics fails at."""

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        raise RuntimeError


def test_it_may_read_of_what_went_wrong_here_too(server: StartServer) -> None:
    one = server(cors_origins=(APP,), api_keys=ApiKeys.of(["k"]))
    one.services.metrics.registry.register(Broken())
    headers = {"origin": APP, "authorization": "Bearer k"}
    answer = one.client.get("/metrics", headers=headers)
    refused(answer, 500, "internal_error")
    assert answer.headers["access-control-allow-origin"] == APP
    answer = one.client.get("/metrics", headers={"origin": APP})
    refused(answer, 401, "invalid_api_key")
    assert answer.headers["access-control-allow-origin"] == APP


@pytest.mark.parametrize("path", ["/realtime", "/transcribe", "/v1/realtime/"])
def test_a_websocket_to_nowhere_is_told_so(shared: Running, path: str) -> None:
    with pytest.raises(InvalidStatus) as nowhere, connect(shared.url.replace("http", "ws") + path):
        pass
    answer = nowhere.value.response
    assert answer.status_code == 404
    assert json.loads(answer.body or b"")["error"]["code"] == "not_found"


def test_a_page_of_another_origin_may_not(listed: Running) -> None:
    other = {"origin": "https://app.example.evil.example"}
    answer = listed.client.options("/transcribe", headers={**other, **PREFLIGHT})
    refused(answer, 403, "origin_not_allowed")
    answer = listed.client.get("/profiles", headers=other)
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "Origin"
    assert listed.client.get("/profiles").headers["vary"] == "Origin"


def test_every_origin_may_call_where_that_is_set(server: StartServer) -> None:
    one = server(cors_origins=("*",))
    local = {"access-control-request-private-network": "true"}
    answer = one.client.options("/transcribe", headers={"origin": "null", **PREFLIGHT, **local})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-private-network"] == "true"
    with socket_of(one, origin="https://any.example"):
        pass


@contextmanager
def socket_of(server: Running, **options: Any) -> Iterator[None]:
    url = server.url.replace("http", "ws") + "/live"
    with connect(url, close_timeout=1, **options):
        yield


def test_pages_of_other_origins_open_no_websocket(listed: Running) -> None:
    with live(listed):  # no page at all
        pass
    with socket_of(listed, origin=APP):
        pass
    with socket_of(listed, origin=listed.url):  # its own page
        pass
    proxied = {"X-Forwarded-Host": "stt.example, inner"}
    with socket_of(listed, origin="https://stt.example", additional_headers=proxied):
        pass
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "", "http://"):
        with pytest.raises(InvalidStatus, match="403"), socket_of(listed, origin=origin):
            pass


@pytest.mark.parametrize(
    ("origin", "host"),
    [("http://box", "box:80"), ("https://box:443", "box"), ("HTTP://BOX:8000", "box:8000")],
)
def test_a_port_that_goes_without_saying_is_the_same(
    shared: Running, origin: str, host: str
) -> None:
    with socket_of(shared, origin=origin, additional_headers={"X-Forwarded-Host": host}):
        pass


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "GZIP", "zstd"])
def test_a_packed_body_is_refused(shared: Running, encoding: str) -> None:
    headers = {"content-encoding": encoding, "content-type": "audio/wav"}
    answer = shared.client.post("/transcribe", content=voice(1), headers=headers)
    message = refused(answer, 415, "unsupported_content_encoding", "content-encoding")
    assert encoding.lower() in message
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_a_body_as_it_is_is_taken(shared: Running, encoding: str) -> None:
    headers = {"content-encoding": encoding, "content-type": "audio/wav"}
    answer = shared.client.post("/transcribe", content=silence(1), headers=headers)
    assert answer.status_code == 200


def test_a_prefix_that_a_proxy_takes_away_or_leaves(server: StartServer) -> None:
    one = server(root_path="/stt/v2")
    for prefix in ("", "/stt/v2"):
        assert one.client.get(f"{prefix}/healthz").json() == {"status": "ok"}
        page = one.client.get(f"{prefix}/")
        assert 'action="transcribe"' in page.text
        described = one.client.get(f"{prefix}/openapi.json").json()
        assert described["servers"] == [{"url": "/stt/v2"}]
    moved = one.client.get("/stt/v2")
    assert (moved.status_code, moved.headers["location"]) == (308, "/stt/v2/")
    assert one.client.get("/stt/v22/healthz").status_code == 404
    labels = {"endpoint": "/profiles", "profile": "", "status": "200"}
    one.client.get("/stt/v2/profiles")
    one.eventually(lambda: one.metric("winnow_requests_total", **labels) == 1)
    answer = httpx.post(f"{one.url}/stt/v2/transcribe", files={"file": silence(1)})
    assert answer.status_code == 200
