"""Server-sent events over real HTTP: order, what they add up to, and how they end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from openai import OpenAI

from service.api import streams
from service.families.fake import FakeModel
from service.types import SAMPLE_RATE

from .conftest import StartServer
from .harness import PATIENCE_S, Gate, Running, refused, silence, voice, wav

Event = dict[str, Any]
# A window is done before the next is encoded.
ONCE = {"stream": "true", "temperature": "0.5"}
ONE_BY_ONE: dict[str, Any] = {"max_batch_windows": 1, "max_decode_windows": 1}


@dataclass(slots=True)
class LaterWindows:
    """Holds every encode but the first of real audio until it is opened.

    Requests name a temperature, so that no window is decoded, and encoded, again.
    """

    opened: threading.Event = field(default_factory=threading.Event)
    passed: bool = False

    def __call__(self, mel_FT: torch.Tensor) -> bool:
        if float(mel_FT.max() - mel_FT.min()) > 0:
            assert not self.passed or self.opened.wait(PATIENCE_S)
            self.passed = True
        return False


def events(answer: httpx.Response) -> Iterator[Event]:
    """The data of each event, as it comes."""
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def streamed(one: Running, audio: bytes, **parameters: str) -> list[Event]:
    data = {"stream": "true", **parameters}
    with one.client.stream("POST", "/transcribe", files={"file": audio}, data=data) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["cache-control"] == "no-cache"
        return list(events(answer))


@pytest.mark.parametrize("response_format", ["json", "text"])
def test_deltas_add_up_to_the_answer(server: StartServer, response_format: str) -> None:
    one = server(**ONE_BY_ONE)
    audio = voice(70)
    *deltas, done = streamed(one, audio, response_format=response_format)
    whole = one.transcribe(audio).json()
    assert deltas  # windows that are done by then come together
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert done["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in deltas) == done["text"] == whole["text"]
    assert [s for event in deltas for s in event["segments"]] == done["segments"]
    assert done["segments"] == whole["segments"]
    assert set(done) == {*whole, "type"}


def test_windows_that_finish_in_another_order_are_sent_in_theirs(server: StartServer) -> None:
    one = server(max_batch_windows=8)
    # Decoded together, and the first window has the most to say.
    first, rest = np.ones(29 * SAMPLE_RATE), np.zeros(SAMPLE_RATE)
    loud = np.concatenate([first, *[np.concatenate([np.zeros(28 * SAMPLE_RATE), rest + 1])] * 2])
    audio = wav(0.3 * loud * np.sin(2 * np.pi * 300 * np.arange(len(loud)) / SAMPLE_RATE))
    *deltas, done = streamed(one, audio, vad="false", no_speech_threshold="1")
    starts = [segment["start"] for event in deltas for segment in event["segments"]]
    assert len(starts) >= 3
    assert starts == sorted(starts)
    assert "".join(event["delta"] for event in deltas) == done["text"]


def test_a_delta_comes_before_the_next_window_is_done(server: StartServer) -> None:
    later = LaterWindows()
    one = server(lambda: FakeModel(fail_encode_when=later), **ONE_BY_ONE)
    try:
        with one.client.stream(
            "POST", "/transcribe", files={"file": voice(70)}, data=ONCE
        ) as answer:
            coming = events(answer)
            assert next(coming)["type"] == "transcript.text.delta"
            assert not later.opened.is_set()
            later.opened.set()
            assert [event["type"] for event in coming][-1] == "transcript.text.done"
    finally:
        later.opened.set()


def test_silence_is_an_empty_text_and_no_delta(shared: Running) -> None:
    (done,) = streamed(shared, silence(2))
    assert (done["type"], done["text"], done["segments"]) == ("transcript.text.done", "", [])


def test_a_refusal_is_a_status_and_no_event(server: StartServer) -> None:
    gate = Gate()
    one = server(lambda: FakeModel(fail_encode_when=gate), max_queue_windows=1, max_batch_windows=1)
    refused(one.transcribe(b"not audio", stream="true"), 400, "invalid_audio")
    with one.client.stream(
        "POST", "/transcribe", files={"file": voice(1)}, data={"stream": "true"}
    ) as first:
        assert first.status_code == 200  # accepted, though nothing is done yet
        try:
            assert gate.reached.wait(PATIENCE_S)
            with one.client.stream(
                "POST", "/transcribe", files={"file": voice(1)}, data={"stream": "true"}
            ) as second:
                assert second.status_code == 200
                third = one.transcribe(voice(1), stream="true")
                assert refused(third, 429, "queue_full")
                assert int(third.headers["retry-after"]) >= 1
                gate.opened.set()
                assert [event["type"] for event in events(second)][-1] == "transcript.text.done"
        finally:
            gate.opened.set()


def test_an_error_on_the_way_is_an_event(server: StartServer) -> None:
    def fails_at_last(mel_FT: torch.Tensor) -> bool:
        # Whatever is shorter than the others, which is the last window.
        sounds = mel_FT.amax(dim=0) > mel_FT.min()
        return bool(sounds.any() and not sounds[1500:].any())

    one = server(lambda: FakeModel(fail_encode_when=fails_at_last), **ONE_BY_ONE)
    got = streamed(one, voice(65), vad="false")
    assert [event["type"] for event in got[:-1]] == ["transcript.text.delta"] * (len(got) - 1)
    error = got[-1]["error"]
    assert (error["code"], error["param"]) == ("engine_error", None)
    assert "request id" in error["message"]
    assert one.transcribe(voice(20)).status_code == 200


def test_a_deadline_on_the_way_is_an_event_and_frees_the_engine(server: StartServer) -> None:
    later = LaterWindows()
    one = server(lambda: FakeModel(fail_encode_when=later), **ONE_BY_ONE)
    try:
        got = streamed(one, voice(100), vad="false", timeout="2", temperature="0.5")
        assert got[-1]["error"]["code"] == "deadline_exceeded"
        assert one.metric("winnow_queue_windows") == 0
        assert one.metric("winnow_cancelled_total", reason="deadline") == 1
    finally:
        later.opened.set()
    assert one.transcribe(voice(1)).status_code == 200


def test_a_client_that_leaves_frees_the_engine(server: StartServer) -> None:
    later = LaterWindows()
    one = server(lambda: FakeModel(fail_encode_when=later), **ONE_BY_ONE)
    try:
        with one.client.stream(
            "POST", "/transcribe", files={"file": voice(100)}, data=ONCE
        ) as answer:
            coming = events(answer)  # by name: a generator let go closes the connection
            assert next(coming)["delta"]
            assert one.metric("winnow_queue_windows") > 0
        one.eventually(lambda: one.metric("winnow_queue_windows") == 0)
        one.eventually(lambda: one.metric("winnow_cancelled_total", reason="client_gone") == 1)
    finally:
        later.opened.set()
    one.eventually(lambda: one.metric("winnow_decoding_windows") == 0)
    assert one.transcribe(voice(1)).status_code == 200


def test_a_silent_connection_is_kept_alive(
    server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PING_S", 0.02)
    gate = Gate()
    one = server(lambda: FakeModel(fail_encode_when=gate))
    try:
        with one.client.stream(
            "POST", "/transcribe", files={"file": voice(1)}, data={"stream": "true"}
        ) as answer:
            lines = answer.iter_lines()
            assert [next(lines) for _ in range(4)] == [": ping", "", ": ping", ""]
            gate.opened.set()
            rest = [line for line in lines if line.startswith("data: ")]
        assert "transcript.text.done" in rest[-1]
    finally:
        gate.opened.set()


def test_what_broke_unexpectedly_is_not_shown(
    server: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = server()

    said = "the secret transcript"

    def explode(*_: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(one.services.models.first.pipeline, "_observe", explode)
    (_, failure) = streamed(one, voice(1))
    assert failure["error"]["code"] == "internal_error"
    assert "secret" not in json.dumps(failure) + caplog.text
    assert "unexpected RuntimeError" in caplog.text
    assert one.client.get("/healthz").status_code == 200


@pytest.mark.parametrize("response_format", ["srt", "vtt", "tsv", "verbose_json"])
def test_only_text_is_streamed(shared: Running, response_format: str) -> None:
    answer = shared.transcribe(voice(0.1), stream="true", response_format=response_format)
    assert "json or text" in refused(answer, 400, "invalid_request", "stream")


# OpenAI's own client


def test_openais_client_follows_a_stream(server: StartServer) -> None:
    one = server(**ONE_BY_ONE)
    with OpenAI(base_url=f"{one.url}/v1", api_key="none", max_retries=0) as client:
        audio = ("a.wav", voice(70))
        stream = client.audio.transcriptions.create(model="fake", file=audio, stream=True)
        *deltas, done = list(stream)
        whole = client.audio.transcriptions.create(model="fake", file=audio)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert done.type == "transcript.text.done"
    assert "".join(getattr(event, "delta", "") for event in deltas) == done.text == whole.text
    usage = done.model_dump()["usage"]
    assert (usage["type"], usage["seconds"]) == ("duration", 70)
    assert not any(hasattr(event, "segments") for event in deltas)


def test_openais_client_raises_an_error_on_the_way(server: StartServer) -> None:
    later = LaterWindows()
    one = server(lambda: FakeModel(fail_encode_when=later), **ONE_BY_ONE, deadline_seconds=2)
    try:
        with OpenAI(base_url=f"{one.url}/v1", api_key="none", max_retries=0) as client:
            stream = client.audio.transcriptions.create(
                model="fake", file=("a.wav", voice(70)), stream=True, temperature=0.5
            )
            assert next(iter(stream)).type == "transcript.text.delta"
            with pytest.raises(openai.APIError, match="2 seconds"):
                list(stream)
    finally:
        later.opened.set()
