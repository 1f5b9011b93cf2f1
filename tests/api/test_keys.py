"""API keys: without one only health and the page are answered."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from service.api.app import create_app
from service.config import ApiKeys, ServerConfig
from service.errors import ConfigError
from service.families.fake import FakeModel

from .conftest import StartServer
from .harness import Running, refused, running, silence, voice
from .raw import POST, ask, code

KEYS = ("sk-alice-1", "sk-bob-22", "k")
GOOD = {"authorization": "Bearer sk-bob-22"}


@pytest.fixture(scope="module")
def closed() -> Iterator[Running]:
    """A server with keys."""
    with running(api_keys=ApiKeys.of(KEYS), cors_origins=("https://app.example",)) as one:
        yield one


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer sk-bob-2"},
        {"authorization": "Bearer sk-bob-22 sk-bob-22"},
        {"authorization": "Basic sk-bob-22"},
        {"authorization": "sk-bob-22"},
        {"authorization": b"Bearer \xff\xfe"},
        {"x-api-key": "sk-bob-22"},
        {"sec-websocket-protocol": "openai-insecure-api-key.sk-bob-22"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/transcribe", "/metrics", "/v1/models", "/none", "/healthz/"])
def test_without_a_key_nothing_is_answered(
    closed: Running, headers: dict[str, Any], path: str
) -> None:
    answer = closed.client.get(path, headers=headers)
    refused(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_with_any_of_them_everything_is(closed: Running, key: str, scheme: str) -> None:
    headers = {"authorization": f"{scheme} {key}"}
    assert closed.client.get("/v1/models", headers=headers).status_code == 200
    answer = closed.client.post("/transcribe", files={"file": voice(1)}, headers=headers)
    assert answer.status_code == 200


def test_health_and_the_page_are_for_everybody(closed: Running) -> None:
    for path in ("/healthz", "/readyz", "/"):
        assert closed.client.get(path).status_code == 200
        assert closed.client.head(path).status_code == 200
    page = closed.client.get("/").text
    assert 'type="password" id="key"' in page
    assert "authorization: Bearer KEY" in page
    assert not any(re.search(rf"\b{key}\b", page) for key in KEYS[:2])


def test_the_page_asks_for_no_key_where_none_is_needed(shared: Running) -> None:
    page = shared.client.get("/").text
    assert "password" not in page
    assert "Bearer KEY" not in page


def test_a_preflight_needs_none_and_the_refusal_can_be_read(closed: Running) -> None:
    page = {"origin": "https://app.example"}
    asked = {"access-control-request-method": "POST"}
    assert closed.client.options("/transcribe", headers={**page, **asked}).status_code == 204
    answer = closed.client.post("/transcribe", files={"file": b"x"}, headers=page)
    refused(answer, 401, "invalid_api_key")
    assert answer.headers["access-control-allow-origin"] == page["origin"]


def test_a_stranger_is_refused_before_the_body(closed: Running) -> None:
    # Of the 100 MB not one byte comes, and no 100 Continue asks for them.
    head = POST + b"Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n"
    assert code(ask(closed, head, end=True)) == (401, "invalid_api_key")
    with httpx.Client(base_url=closed.url) as client:
        for _ in range(3):  # whichever connection it is
            sent = client.post("/transcribe", files={"file": bytes(3_000_000)})
            assert sent.status_code == 401
            assert client.get("/v1/models", headers=GOOD).status_code == 200


def test_metrics_are_for_everybody_where_that_is_set(server: StartServer) -> None:
    one = server(api_keys=ApiKeys.of(KEYS), metrics_open=True, root_path="/stt")
    assert one.client.get("/metrics").status_code == 200
    assert one.client.get("/stt/metrics").status_code == 200
    assert one.client.get("/stt/profiles").status_code == 401


def test_openai_s_client(closed: Running) -> None:
    client = openai.OpenAI(base_url=f"{closed.url}/v1", api_key=KEYS[0], max_retries=0)
    assert client.models.list().data
    stranger = client.with_options(api_key="sk-none")
    with pytest.raises(openai.AuthenticationError) as wrong:
        stranger.audio.transcriptions.create(model="whisper-1", file=("a.wav", silence(1)))
    assert wrong.value.code == "invalid_api_key"


def test_websockets_by_header_or_as_a_browser_can(closed: Running) -> None:
    url = closed.url.replace("http", "ws") + "/live"
    with connect(url, additional_headers=GOOD, close_timeout=1):
        pass
    browser: Any = ["live", "openai-insecure-api-key.sk-alice-1"]
    with connect(url, subprotocols=browser, close_timeout=1) as one:
        assert one.subprotocol == "live"
    wrong_key: Any = ["openai-insecure-api-key.sk-alice"]
    for offered in (None, wrong_key):
        with pytest.raises(InvalidStatus) as wrong, connect(url, subprotocols=offered):
            pass
        answer = wrong.value.response
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert b'"invalid_api_key"' in (answer.body or b"")


def test_the_keys_of_a_file(server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\n\nsk-carol  # since May\n  sk#dave\n")
    one = server(api_keys_file=file, api_keys=ApiKeys.of(["sk-alice"]))
    for key in ("sk-carol", "sk#dave", "sk-alice"):
        bearer = {"authorization": f"Bearer {key}"}
        assert one.client.get("/profiles", headers=bearer).status_code == 200
    for key in ("#", "#dave", "since"):
        bearer = {"authorization": f"Bearer {key}"}
        assert one.client.get("/profiles", headers=bearer).status_code == 401


@pytest.mark.parametrize(
    "content",
    ["", "# none\n", "sk-secret sk-other\n", "sk-sécret\n", "sk-secret,sk-other", b"\xff"],
    ids=["empty", "comments", "two", "accent", "comma", "binary"],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as refusal:
        create_app(ServerConfig(api_keys_file=file), lambda _: FakeModel())
    assert "cret" not in str(refusal.value)
    with pytest.raises(ConfigError, match=r"api_keys_file .*No such file"):
        create_app(ServerConfig(api_keys_file=tmp_path / "none"), lambda _: FakeModel())


def test_no_key_is_shown(server: StartServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = ServerConfig(api_keys=ApiKeys.of(["sk-very-secret"]))
    one = server(api_keys=config.api_keys)
    url = one.url.replace("http", "ws") + "/live?key=sk-very-secret"
    browser: Any = ["live", "openai-insecure-api-key.sk-very-secret"]
    with connect(url, subprotocols=browser, close_timeout=1):
        pass
    one.client.get("/profiles?key=sk-very-secret", headers={"authorization": "sk-very-secret"})
    assert "secret" not in repr(config) + str(config)
    told = [line for line in caplog.messages if not line.startswith(("<", ">"))]
    assert not [line for line in told if "secret" in line and "HTTP Request" not in line]
