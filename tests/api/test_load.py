"""Limits, refusals and departures, each with other requests in flight that must not notice."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import httpx
import pytest
import torch

from service import models
from service.api.server import DrainingServer
from service.engine.engine import Engine
from service.families.fake import FakeModel
from service.profiles import Profile
from service.requests.admission import ALWAYS_WAITING

from .conftest import StartServer
from .harness import PATIENCE_S, Gate, Running, refused, voice

CHUNK = b"\x00" * 65536


@contextmanager
def in_flight(one: Running, num: int = 3) -> Iterator[list[Future[httpx.Response]]]:
    """Requests of others on their way; at the end each must have its words."""
    with ThreadPoolExecutor(num) as pool:
        others = [pool.submit(one.transcribe, voice(2, 100 + i)) for i in range(num)]
        yield others
        for other in others:
            assert other.result(PATIENCE_S).status_code == 200
            assert other.result().json()["text"]


def send_head(one: Running, *headers: str, path: str = "/transcribe") -> socket.socket:
    """Opens a connection and sends a request's head, no body."""
    url = httpx.URL(one.url)
    connection = socket.create_connection((url.host, url.port), timeout=PATIENCE_S)
    head = (f"POST {path} HTTP/1.1", f"Host: {url.host}", "Content-Type: audio/wav", *headers)
    connection.sendall("\r\n".join((*head, "", "")).encode())
    return connection


def read_head(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received and (data := connection.recv(65536)):
        received += data
    return received


def test_an_endless_body_is_cut_off_at_the_limit(shared: Running) -> None:
    sent = 0
    with in_flight(shared), send_head(shared, "Transfer-Encoding: chunked") as connection:
        answered = threading.Event()
        heads: list[bytes] = []

        def read() -> None:
            heads.append(read_head(connection))
            answered.set()

        reader = threading.Thread(target=read)
        reader.start()
        while not answered.is_set() and sent < 1 << 30:
            connection.sendall(b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK))
            sent += len(CHUNK)
        reader.join()
    assert heads[0].startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in heads[0].lower()
    assert 1 << 20 < sent < 1 << 30


def test_an_endless_form_is_cut_off_at_the_limit(shared: Running) -> None:
    def form() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):  # 2.5 MB of the 1 MB that is allowed
            yield CHUNK

    with in_flight(shared):
        answer = shared.client.post(
            "/transcribe",
            content=form(),
            headers={"content-type": "multipart/form-data; boundary=b"},
        )
    assert "1 MB" in refused(answer, 413, "payload_too_large")


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(shared: Running) -> None:
    with send_head(shared, f"Content-Length: {2 << 20}") as connection:
        assert read_head(connection).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_it_all_before_reading_still_learns_why(shared: Running) -> None:
    answer = shared.client.post(
        "/transcribe", content=CHUNK * 64, headers={"content-type": "audio/wav"}
    )
    assert refused(answer, 413, "payload_too_large")


def test_bad_input_harms_nobody_else(shared: Running) -> None:
    with in_flight(shared):
        assert shared.transcribe(b"not audio").status_code == 400
        assert shared.transcribe(voice(0.1), profile="warp").status_code == 400
        assert shared.transcribe(voice(61)).status_code == 413


def test_a_full_queue_says_when_to_come_back(server: StartServer) -> None:
    gate = Gate()
    one = server(lambda: FakeModel(fail_encode_when=gate), max_queue_windows=1, max_batch_windows=1)
    try:
        with in_flight(one, 1):
            assert gate.reached.wait(PATIENCE_S)
            with in_flight(one, 1):
                one.eventually(lambda: one.metric("winnow_queue_windows") == 1)
                answer = one.transcribe(voice(1))
                assert refused(answer, 429, "queue_full")
                assert int(answer.headers["retry-after"]) >= 1
                gate.opened.set()
    finally:
        gate.opened.set()
    assert one.transcribe(voice(1)).status_code == 200


def test_who_would_wait_too_long_is_refused_before_a_byte_of_the_recording(
    server: StartServer,
) -> None:
    gate = Gate()
    gate.opened.set()
    one = server(lambda: FakeModel(fail_encode_when=gate), max_wait_seconds=1, max_batch_windows=1)
    for _ in range(2):
        assert one.transcribe(voice(1)).status_code == 200
    gate.opened.clear()
    gate.reached.clear()
    heads: list[bytes] = []

    def ask() -> bool:
        with send_head(one, "X-Request-ID: again", "Content-Length: 1000") as newcomer:
            newcomer.settimeout(0.3)
            try:
                heads.append(read_head(newcomer))
            except TimeoutError:  # it is taken: the service waits for the body
                return False
        return heads[-1].startswith(b"HTTP/1.1 429 ")

    try:
        with in_flight(one, 1):
            assert gate.reached.wait(PATIENCE_S)
            waiting = ALWAYS_WAITING - 1  # one is on the device
            with in_flight(one, waiting):
                one.eventually(lambda: one.metric("winnow_queue_windows") == waiting)
                one.eventually(ask)
                gate.opened.set()
    finally:
        gate.opened.set()
    assert b"retry-after: " in heads[-1].lower()
    assert one.transcribe(voice(1)).status_code == 200


def test_a_client_that_leaves_is_counted_and_its_work_dropped(server: StartServer) -> None:
    gate = Gate()
    one = server(lambda: FakeModel(fail_encode_when=gate), max_batch_windows=1)
    try:
        with in_flight(one, 1):
            assert gate.reached.wait(PATIENCE_S)
            body = voice(1)
            with send_head(one, f"Content-Length: {len(body)}") as leaver:
                leaver.sendall(body)
                one.eventually(lambda: one.metric("winnow_queue_windows") == 1)
            one.eventually(lambda: one.metric("winnow_queue_windows") == 0)
            gate.opened.set()
    finally:
        gate.opened.set()
    assert one.metric("winnow_cancelled_total", reason="client_gone") == 1
    left = {"endpoint": "/transcribe", "profile": "dense", "status": "499"}
    one.eventually(lambda: one.metric("winnow_requests_total", **left) == 1)


def test_a_client_that_leaves_while_sending_is_counted(server: StartServer) -> None:
    one = server()
    with send_head(one, "Content-Length: 1000") as leaver:
        leaver.sendall(b"RIFF")
        # Closed with a reset, as a killed process's connection is.
        leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.eventually(lambda: one.metric("winnow_cancelled_total", reason="client_gone") == 1)


def test_a_deadline_that_passes_is_told_and_harms_nobody_else(server: StartServer) -> None:
    gate = Gate()
    one = server(lambda: FakeModel(fail_encode_when=gate))
    try:
        with in_flight(one):
            assert gate.reached.wait(PATIENCE_S)
            answer = one.transcribe(voice(1), timeout="0.2")
            gate.opened.set()
    finally:
        gate.opened.set()
    assert refused(answer, 504, "deadline_exceeded")
    assert one.metric("winnow_cancelled_total", reason="deadline") == 1
    assert one.transcribe(voice(1)).status_code == 200


def test_an_upload_that_never_ends_meets_the_deadline(server: StartServer) -> None:
    one = server(deadline_seconds=1)
    with send_head(one, "Content-Length: 1000") as slow:
        assert read_head(slow).startswith(b"HTTP/1.1 504 ")
    assert one.metric("winnow_cancelled_total", reason="deadline") == 1


def test_a_window_that_the_model_fails_on_fails_its_request_alone(server: StartServer) -> None:
    one = server(lambda: FakeModel(fail_encode_when=_is_long))
    others = one.transcribe(voice(2)).json()["text"]
    with in_flight(one):
        answer = one.client.post(
            "/transcribe",
            files={"file": voice(8)},
            headers={"x-request-id": "poison"},
        )
        assert "request id poison" in refused(answer, 500, "engine_error")
    assert one.transcribe(voice(2)).json()["text"] == others
    assert one.client.get("/readyz").status_code == 200


def test_a_lost_device_is_said_until_it_works_again(
    server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "Engine", partial(Engine, recovery_s=0.05))
    broken = threading.Event()
    one = server(lambda: FakeModel(fail_encode_when=lambda _: broken.is_set()), drain_seconds=60)
    assert one.transcribe(voice(1)).status_code == 200
    broken.set()
    assert "request id" in refused(one.transcribe(voice(1)), 500, "engine_error")
    for answer in (one.client.get("/readyz"), one.transcribe(voice(1))):
        assert "the device failed: RuntimeError" in refused(answer, 503, "not_ready")
        assert answer.headers["retry-after"] == "5"  # not the time of a drain
    assert one.metric("winnow_ready") == 0
    assert one.client.get("/healthz").status_code == 200
    broken.clear()
    one.eventually(lambda: one.client.get("/readyz").status_code == 200)
    assert one.transcribe(voice(1)).status_code == 200


def test_a_device_lost_before_the_start_is_announced_does_not_end_the_server(
    server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_announce = threading.Event()
    announce = DrainingServer._announce
    monkeypatch.setattr(
        DrainingServer, "_announce", lambda self: announce(self) if may_announce.is_set() else None
    )
    monkeypatch.setattr(models, "Engine", partial(Engine, recovery_s=PATIENCE_S))
    broken = threading.Event()
    one = server(lambda: FakeModel(fail_encode_when=lambda _: broken.is_set()))
    broken.set()
    refused(one.transcribe(voice(1)), 500, "engine_error")
    may_announce.set()
    time.sleep(0.3)  # a few of uvicorn's ticks
    assert not one.server.should_exit
    assert one.client.get("/healthz").status_code == 200


def _is_long(mel_FT: torch.Tensor) -> bool:
    """Whether there is sound after five seconds."""
    return bool(mel_FT[:, 500:].max() > mel_FT.min())


def test_an_unexpected_error_is_not_shown_and_its_text_not_logged(
    server: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = server()

    said = "the secret transcript"

    def explode(name: str | None) -> Profile:
        raise RuntimeError(said)

    monkeypatch.setattr(one.services.models.first.pipeline, "resolve_profile", explode)
    answer = one.client.get("/profiles", headers={"x-request-id": "trace-1"})
    message = refused(answer, 500, "internal_error")
    assert "trace-1" in message
    assert answer.headers["x-request-id"] == "trace-1"
    assert "secret" not in answer.text
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "unexpected RuntimeError, request_id=trace-1" in logged
    assert "secret" not in caplog.text
    assert one.client.get("/healthz").status_code == 200
