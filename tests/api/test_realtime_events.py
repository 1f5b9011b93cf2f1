"""What a transcription session says of events that are not right, and how it changes and ends."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from service.api.realtime import MAX_BAD_EVENTS, MAX_WAITING_ITEMS
from service.api.server import MAX_BYTES, MAX_MESSAGE_BYTES
from service.families.fake import FakeModel
from service.model.protocol import SpeechModel

from .conftest import StartServer
from .harness import PATIENCE_S, Gate, Running, running, silence, voice
from .live_client import live, pcm
from .realtime_client import Raw, at_24k, hello, raw

LOGPROBS = "item.input_audio_transcription.logprobs"
BUFFER = "input_audio_buffer"


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    with running() as server:
        yield server


def append(audio: bytes) -> dict[str, Any]:
    return {"type": f"{BUFFER}.append", "audio": base64.b64encode(audio).decode()}


def session(**spoken: Any) -> dict[str, Any]:
    return {"type": "transcription", "audio": {"input": spoken}}


COMMIT = {"type": f"{BUFFER}.commit"}


BAD_EVENTS: list[tuple[Any, str | None, str, str]] = [
    ("hello", None, "invalid_event", "JSON object"),
    ("[1]", None, "invalid_event", "JSON object"),
    ("[" * 100_000, None, "invalid_event", "JSON object"),
    (b"\x00\x01", None, "invalid_event", "base64"),
    ({}, "type", "missing_required_parameter", "'type'"),
    ({"type": 7}, "type", "invalid_value", "session.update, input_audio_buffer.append"),
    ({"type": "input_audio_buffer.explode"}, "type", "invalid_value", "no such event"),
    ({"type": "response.create"}, "type", "invalid_value", "no responses"),
    ({"type": "conversation.item.create", "item": {}}, "type", "invalid_value", "no conversation"),
    ({"type": "transcription_session.update"}, "type", "invalid_value", "withdrawn"),
    ({"type": f"{BUFFER}.commit", "force": True}, "force", "unknown_parameter", "Valid: type"),
    ({"type": f"{BUFFER}.commit", "event_id": 7}, "event_id", "invalid_value", "string"),
    ({"type": f"{BUFFER}.append"}, "audio", "missing_required_parameter", "'audio'"),
    ({"type": f"{BUFFER}.append", "audio": [1]}, "audio", "missing_required_parameter", "audio"),
    ({"type": f"{BUFFER}.append", "audio": "AAA"}, "audio", "invalid_value", "base64"),
    ({"type": f"{BUFFER}.append", "audio": "Ä==="}, "audio", "invalid_value", "base64"),
    (COMMIT, None, "input_audio_buffer_commit_empty", "at least 100 ms"),
]


@pytest.mark.parametrize(("event", "param", "code", "part"), BAD_EVENTS)
def test_an_event_that_is_not_right_is_told_and_the_session_goes_on(
    one: Running, event: Any, param: str | None, code: str, part: str
) -> None:
    with raw(one) as client:
        hello(client)
        client.send(event)
        error = client.error()
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert error["code"] == code
        assert part in error["message"]
        assert client.update({"type": "transcription"})["type"] == "session.updated"


BAD_SESSIONS: list[tuple[Any, str, str, str]] = [
    (None, "session", "invalid_value", "JSON object"),
    ({}, "session.type", "missing_required_parameter", "session.type"),
    ({"type": "realtime"}, "session.type", "invalid_value", "only transcription"),
    ({"type": "chat"}, "session.type", "invalid_value", "transcription"),
    (session() | {"voice": "alloy"}, "session.voice", "unknown_parameter", "Valid: type, audio"),
    ({"type": "transcription", "audio": 3}, "session.audio", "invalid_value", "JSON object"),
    (
        {"type": "transcription", "audio": {"output": {}}},
        *("session.audio.output", "unknown_parameter", "Valid: input"),
    ),
    (session(volume=3), "session.audio.input.volume", "unknown_parameter", "format"),
    (session(format="pcm16"), "session.audio.input.format", "invalid_value", "JSON object"),
    (
        session(format={"type": "audio/mp3"}),
        *("session.audio.input.format.type", "invalid_value", "audio/pcm, audio/pcmu, audio/pcma"),
    ),
    (
        session(format={"type": "audio/pcm", "rate": 16000}),
        *("session.audio.input.format.rate", "invalid_value", "24000"),
    ),
    (
        session(transcription={"model": "gpt-5"}),
        *("session.audio.input.transcription.model", "model_not_found", "not served here"),
    ),
    (
        session(transcription={"model": "whisper-1@warp"}),
        *("session.audio.input.transcription.model", "invalid_request", "dense, balanced, fast"),
    ),
    (
        session(transcription={"language": "klingon"}),
        *("session.audio.input.transcription.language", "invalid_request", "unknown language"),
    ),
    (
        session(transcription={"languages": "de"}),
        *("session.audio.input.transcription.languages", "invalid_value", "list of strings"),
    ),
    (
        session(transcription={"keywords": [1]}),
        *("session.audio.input.transcription.keywords", "invalid_value", "list of strings"),
    ),
    (
        session(transcription={"prompt": "a" * 10_001}),
        *("session.audio.input.transcription.prompt", "invalid_value", "10,000 characters"),
    ),
    (
        session(transcription={"delay": "long"}),
        *("session.audio.input.transcription.delay", "invalid_value", "minimal"),
    ),
    (
        session(transcription=None),
        *("session.audio.input.transcription", "invalid_value", "JSON object"),
    ),
    (
        session(noise_reduction={"type": "mid_field"}),
        *("session.audio.input.noise_reduction.type", "invalid_value", "near_field, far_field"),
    ),
    (
        session(turn_detection={"type": "telepathy"}),
        *("session.audio.input.turn_detection.type", "invalid_value", "server_vad, semantic_vad"),
    ),
    (
        session(turn_detection={"type": "server_vad", "threshold": 1.5}),
        *("session.audio.input.turn_detection.threshold", "invalid_value", "0 to 1"),
    ),
    (
        session(turn_detection={"type": "server_vad", "silence_duration_ms": True}),
        *("session.audio.input.turn_detection.silence_duration_ms", "invalid_value", "0 to 20,000"),
    ),
    (
        session(turn_detection={"type": "server_vad", "prefix_padding_ms": 1e400}),
        *("session.audio.input.turn_detection.prefix_padding_ms", "invalid_value", "0 to 5,000"),
    ),
    (
        session(turn_detection={"type": "semantic_vad", "eagerness": "keen"}),
        *("session.audio.input.turn_detection.eagerness", "invalid_value", "low, auto"),
    ),
    (session() | {"include": ["item.all"]}, "session.include", "invalid_value", LOGPROBS),
    (session() | {"include": LOGPROBS}, "session.include", "invalid_value", "list"),
]


@pytest.mark.parametrize(("given", "param", "code", "part"), BAD_SESSIONS)
def test_an_update_that_cannot_be_taken_changes_nothing(
    one: Running, given: Any, param: str, code: str, part: str
) -> None:
    with raw(one) as client:
        before = hello(client)
        client.send({"type": "session.update", "event_id": "mine", "session": given})
        error = client.error()
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert (error["code"], error["event_id"]) == (code, "mine")
        assert part in error["message"]
        assert client.update({"type": "transcription"})["session"] == before


def test_an_update_changes_what_it_names(one: Running) -> None:
    with raw(one) as client:
        before = hello(client)
        assert before["object"] == "realtime.transcription_session"
        assert before["audio"]["input"] == {
            "format": {"type": "audio/pcm", "rate": 24000},
            "noise_reduction": None,
            "transcription": {"model": "fake"},
            "turn_detection": {
                **{"type": "server_vad", "threshold": 0.5},
                **{"prefix_padding_ms": 300, "silence_duration_ms": 500},
            },
        }
        client.update(session(transcription={"model": "whisper-1", "language": "en"}))
        client.update(session(turn_detection={"type": "server_vad", "silence_duration_ms": 700}))
        client.update(session(turn_detection={"type": "server_vad", "threshold": 0.7}))
        told = client.update(session(format={"type": "audio/pcma"}) | {"include": [LOGPROBS]})
    assert told["session"] == before | {
        "include": [LOGPROBS],
        "audio": {
            "input": {
                "format": {"type": "audio/pcma"},
                "noise_reduction": None,
                "transcription": {"model": "whisper-1", "language": "en"},
                "turn_detection": {
                    **{"type": "server_vad", "threshold": 0.7},
                    **{"prefix_padding_ms": 300, "silence_duration_ms": 700},
                },
            }
        },
    }
    assert "warnings" not in told


UNUSED: list[tuple[dict[str, Any], str]] = [
    ({"noise_reduction": {"type": "near_field", "strength": 0.5}}, "noise_reduction"),
    ({"transcription": {"delay": "low"}}, "transcription.delay"),
    ({"turn_detection": {"type": "semantic_vad"}}, "turn_detection.type"),
    (
        {"turn_detection": {"type": "server_vad", "create_response": False}},
        "turn_detection.create_response",
    ),
    (
        {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000}},
        "turn_detection.idle_timeout_ms",
    ),
]


@pytest.mark.parametrize(("given", "param"), UNUSED)
def test_what_means_nothing_here_is_taken_and_named(
    one: Running, given: dict[str, Any], param: str
) -> None:
    with raw(one) as client:
        hello(client)
        told = client.update(session(**given))
        (warning,) = told["warnings"]
        assert warning["code"] == "ignored_parameter"
        assert warning["param"] == f"session.audio.input.{param}"
        assert "warnings" not in client.update(session())


def test_semantic_vad_waits_as_its_eagerness_says(one: Running) -> None:
    waits = []
    with raw(one) as client:
        hello(client)
        for eagerness in ("high", "medium", "auto", "low"):
            wanted = {"type": "semantic_vad", "eagerness": eagerness}
            told = client.update(session(turn_detection=wanted))["session"]
            turns = told["audio"]["input"]["turn_detection"]
            assert turns["type"] == "server_vad"
            waits.append(turns["silence_duration_ms"])
    assert waits[0] < waits[1] == waits[2] < waits[3]


@pytest.mark.parametrize("model", ["gpt-live-transcribe", "gpt-realtime-whisper"])
def test_models_that_leave_turns_to_the_client(one: Running, model: str) -> None:
    def turns(told: dict[str, Any]) -> Any:
        return told["audio"]["input"]["turn_detection"]

    with raw(one) as client:
        hello(client)
        assert turns(client.update(session(transcription={"model": model}))["session"]) is None
        vad = {"type": "server_vad"}
        assert turns(client.update(session(turn_detection=vad))["session"])
        assert turns(client.update(session(transcription={"model": model}))["session"])
    with raw(one, f"intent=transcription&model={model}") as client:
        assert turns(hello(client)) is None


BAD_QUERIES = [
    ("intent=conversation", "intent", "invalid_value"),
    ("model=gpt-realtime", "session.audio.input.transcription.model", "model_not_found"),
]


@pytest.mark.parametrize(("query", "param", "code"), BAD_QUERIES)
def test_a_session_that_is_not_to_be_had(one: Running, query: str, param: str, code: str) -> None:
    with raw(one, query) as client:
        error = client.error()
        assert (error["param"], error["code"]) == (param, code)
        assert client.close_code()[0] == 1008


def test_the_subprotocol_is_spoken_where_it_is_offered(one: Running) -> None:
    with raw(one, protocols=("openai-insecure-api-key.k", "realtime")) as client:
        assert client.socket.subprotocol == "realtime"
    with raw(one) as client:
        assert client.socket.subprotocol is None


def test_a_client_that_is_mostly_wrong_is_let_go(one: Running) -> None:
    with raw(one) as client:
        hello(client)
        for _ in range(MAX_BAD_EVENTS):
            client.send("{}")
            client.error()
        client.send({"type": "nothing", "event_id": "last"})
        assert client.error()["event_id"] == "last"
        assert client.close_code()[0] == 1008


def test_a_client_that_says_nothing_is_let_go(server: StartServer) -> None:
    with raw(server(live_idle_seconds=1)) as client:
        hello(client)
        assert client.error()["code"] == "deadline_exceeded"
        assert client.close_code()[0] == 1001


def test_a_message_that_is_too_long(one: Running) -> None:
    with raw(one) as client:
        hello(client)
        client.send({"type": "nothing", "event_id": "e" * (MAX_MESSAGE_BYTES + 1)})
        assert "nothing" in client.error()["message"]
        client.socket.send(["{" * MAX_BYTES["/v1/realtime"], "{}"])
        assert client.close_code()[0] == 1009


def test_while_loading_and_with_too_many(server: StartServer) -> None:
    loaded = threading.Event()

    def load() -> SpeechModel:
        assert loaded.wait(PATIENCE_S)
        return FakeModel()

    try:
        mine = server(load, wait=False, max_live_sessions=1)
        with raw(mine) as client:
            assert client.error()["code"] == "not_ready"
            assert client.close_code()[0] == 1013
    finally:
        loaded.set()
    mine.engine.wait_ready(PATIENCE_S)
    with live(mine), raw(mine) as client:
        assert client.error()["code"] == "queue_full"
        assert client.close_code()[0] == 1013


def test_commits_without_speech_wait_for_the_item_before_them(server: StartServer) -> None:
    """A client that commits faster than the device works is not read, and nothing piles up."""
    gate = Gate()
    mine = server(lambda: FakeModel(fail_encode_when=gate))
    quiet = append(at_24k(pcm(silence(0.1))))
    with raw(mine) as client:
        hello(client)
        client.update(session(turn_detection=None))
        client.send(append(at_24k(pcm(voice(1)))))
        client.send(COMMIT)
        num = MAX_WAITING_ITEMS + 40

        def send() -> None:
            for _ in range(num):
                client.send(quiet)
                client.send(COMMIT)

        sender = threading.Thread(target=send)
        sender.start()
        while (message := client.next())["type"] != "input_audio_buffer.committed":
            pass
        committed = 1
        while committed < MAX_WAITING_ITEMS:
            message = client.next()
            committed += message["type"] == "input_audio_buffer.committed"
            assert not message["type"].endswith("completed")
        assert mine.metric("winnow_live_sessions") == 1
        assert "input_audio_buffer.committed" not in _what_still_comes(client)
        gate.opened.set()
        done: list[str] = []
        while len(done) < num + 1:
            message = client.next()
            if message["type"].endswith("completed"):
                done.append(message["transcript"])
        sender.join(PATIENCE_S)
    assert done[0]
    assert set(done[1:]) == {""}


def _what_still_comes(client: Raw) -> list[str]:
    kinds: list[str] = []
    with suppress(TimeoutError):
        while True:
            kinds.append(json.loads(client.socket.recv(timeout=0.5))["type"])
    return kinds


def random_event(rng: random.Random) -> str | bytes:
    """Anything: noise, half of a right event, right ones at any time."""
    vad = rng.choice([None, {"type": "server_vad", "silence_duration_ms": rng.choice([0, 96, -1])}])
    right: list[Any] = [
        {"type": "session.update", "session": session(turn_detection=vad)},
        {"type": "session.update", "session": session(format={"type": rng.choice(FORMATS)})},
        append(rng.randbytes(rng.randrange(40_000))),
        append(at_24k(pcm(voice(rng.choice([0.2, 0.7]))))),
        {"type": rng.choice([f"{BUFFER}.commit", f"{BUFFER}.clear", "response.create"])},
    ]
    text = json.dumps(rng.choice(right))
    kinds: list[str | bytes] = [
        *([text] * 5),
        text[: rng.randrange(len(text))],
        rng.randbytes(rng.randrange(2000)),
        "".join(chr(rng.randrange(1, 0xD7FF)) for _ in range(rng.randrange(50))),
    ]
    return rng.choice(kinds)


FORMATS = ["audio/pcm", "audio/pcmu", "audio/pcma", "audio/flac"]


def test_no_event_kills_the_server(one: Running) -> None:
    rng = random.Random(0)
    for _ in range(40):
        with raw(one) as client:
            hello(client)
            for _ in range(rng.randrange(1, 30)):
                client.send(random_event(rng))
            client.send({"type": f"{BUFFER}.clear"})
            try:
                while client.next()["type"] != f"{BUFFER}.cleared" or _more(client):
                    pass
            except ConnectionClosed as closed:
                raise AssertionError(client.messages) from closed
            told = [m for m in client.messages if m["type"] == "error"]
            assert all(m["error"]["type"] == "invalid_request_error" for m in told)
    assert one.client.get("/healthz").status_code == 200


def _more(client: Raw) -> bool:
    """Whether the session still answers: an update is taken after whatever came before."""
    client.send({"type": "session.update", "session": {"type": "transcription"}})
    while client.next()["type"] != "session.updated":
        pass
    return False
