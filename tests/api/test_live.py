"""Live sessions over a real socket: the words, the pauses, what is refused, and how they end."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch
from websockets.exceptions import ConnectionClosed

from service.families.fake import FakeModel
from service.families.whisper import Whisper
from service.live.conversation import MAX_BAD_MESSAGES
from service.model.protocol import SpeechModel
from tests.speech import SAID, SAMPLE, normalised, samples_of

from .conftest import StartServer
from .harness import PATIENCE_S, Running, running, silence, voice
from .live_client import Message, live, opus_packets, pcm, talk, whole
from .realtime_client import at_24k


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    """A server for the tests that leave it as it was."""
    with running() as server:
        yield server


def test_the_words_are_those_of_a_whole_recording(one: Running) -> None:
    recording = voice(3.3)
    client = whole(one, pcm(recording) + pcm(silence(1)), partials=False)
    answer = one.transcribe(recording).json()
    assert client.text == answer["text"] != ""
    assert [m["type"] for m in client.messages] == ["ready", "final", "done"]
    assert client.of("done")[0]["received_bytes"] == len(pcm(recording)) + 32_000


def test_however_the_audio_is_cut_into_messages(one: Running) -> None:
    audio = talk(2, 1.5)
    told = []
    for step in (202, 6400, len(audio)):
        with live(one, partials=False) as client:
            client.send_audio(audio, step)
            client.send(type="stop")
            client.until("done")
            told.append(client.of("final"))
    assert len(told[0]) == 2
    assert told[0] == told[1] == told[2]


def test_partials_then_the_final_that_replaces_them(one: Running) -> None:
    with live(one) as client:
        client.send_audio(pcm(voice(1.5)))
        partial = client.until("partial")
        client.send_audio(pcm(voice(1.5)) + pcm(silence(1)))
        final = client.until("final")
        assert partial["id"] == final["id"] == final["seq"] == 1
        assert partial["text"]
        assert final["start"] <= partial["start"] < partial["end"] < final["end"]


def test_a_final_comes_after_a_pause_without_being_asked(one: Running) -> None:
    with live(one, partials=False) as client:
        client.send_audio(pcm(voice(1)) + pcm(silence(0.6)))
        assert client.until("final")["text"]


def test_a_flush_is_a_pause(one: Running) -> None:
    with live(one, partials=False) as client:
        client.send_audio(pcm(voice(1)))
        client.send(type="flush")
        first = client.until("final")
        client.send_audio(pcm(voice(1)))
        client.send(type="stop")
        second = client.until("final")
        assert client.until("done")["seq"] == 2
        assert first["end"] <= second["start"]


def test_flushes_do_not_shift_the_clock(one: Running) -> None:
    """Though they fall into the VAD's chunks, and a resampler holds back what comes before them."""
    with live(one, sample_rate=24_000, partials=False) as client:
        for _ in range(10):
            client.send_audio(bytes(2 * 24_240))
            client.send(type="flush")
        client.send_audio(at_24k(pcm(voice(1)) + pcm(silence(1))))
        client.send(type="stop")
        assert client.until("final")["start"] == pytest.approx(10.1 - 0.3, abs=0.07)
        assert client.until("done")["received_seconds"] == pytest.approx(12.1, abs=0.001)


def test_opus_packets_are_heard_as_pcm_is(one: Running) -> None:
    audio = talk(2, 1.5)
    by_pcm = whole(one, audio, partials=False).of("final")
    with live(one, encoding="opus", partials=False) as client:
        for packet in opus_packets(audio):
            client.socket.send(packet)
        client.send(type="stop")
        client.until("done")
    assert len(client.of("final")) == len(by_pcm) == 2
    for ours, theirs in zip(client.of("final"), by_pcm, strict=True):
        assert ours["text"]
        assert abs(ours["start"] - theirs["start"]) < 0.2
        assert abs(ours["end"] - theirs["end"]) < 0.2


def test_two_sessions_do_not_disturb_each_other(one: Running) -> None:
    sounds = [talk(2, 1), talk(1, 2.5)]
    alone = [whole(one, sound, partials=False).of("final") for sound in sounds]
    with live(one, partials=False) as left, live(one, partials=False) as right:
        for at in range(0, len(sounds[0]), 6400):
            left.socket.send(sounds[0][at : at + 6400])
            right.socket.send(sounds[1][at : at + 6400])
        right.send_audio(sounds[1][len(sounds[0]) :])
        for client in (left, right):
            client.send(type="stop")
            client.until("done")
        assert [left.of("final"), right.of("final")] == alone
    assert alone[0] != alone[1]


BAD_STARTS: list[tuple[str, str | None, str]] = [
    ("hello", None, "JSON object"),
    ("[1]", None, "JSON object"),
    ("[" * 100_000, None, "JSON object"),
    ('{"type": "stop"}', "type", '"start"'),
    ('{"type": "start", "volume": 3}', "volume", "Valid: type, model, profile"),
    ('{"type": "start", "profile": "warp"}', "profile", "dense, balanced, fast"),
    ('{"type": "start", "profile": 3}', "profile", "string"),
    ('{"type": "start", "language": "klingon"}', "language", "unknown language"),
    ('{"type": "start", "encoding": "mp3"}', "encoding", "pcm_s16le, opus"),
    ('{"type": "start", "sample_rate": 100}', "sample_rate", "8,000 to 48,000"),
    ('{"type": "start", "sample_rate": true}', "sample_rate", "whole number"),
    ('{"type": "start", "channels": 3}', "channels", "1 to 2"),
    ('{"type": "start", "partials": "yes"}', "partials", "true or false"),
    ('{"type": "start", "after": -1}', "after", "whole number"),
]


@pytest.mark.parametrize(("text", "param", "part"), BAD_STARTS)
def test_a_bad_start_is_refused_with_a_sentence(
    one: Running, text: str, param: str | None, part: str
) -> None:
    with live(one, start=False) as client:
        client.socket.send(text)
        error = client.until("error")["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert part in error["message"]
        code, reason = client.close_code()
        assert (code, error["message"].startswith(reason)) == (1008, True)


def test_audio_before_the_start(one: Running) -> None:
    with live(one, start=False) as client:
        client.socket.send(bytes(320))
        assert client.close_code()[0] == 1008
        assert "before audio" in client.of("error")[0]["error"]["message"]


def test_part_of_a_sample_ends_the_connection_and_is_not_taken(one: Running) -> None:
    audio = talk(1)
    with live(one, partials=False) as client:
        client.socket.send(audio[:3200])
        client.socket.send(audio[3200:6401])
        assert client.close_code()[0] == 1008
        error = client.of("error")[0]["error"]
        assert (error["code"], "3201 bytes" in error["message"]) == ("invalid_audio", True)
    session = client.messages[0]["session"]
    with live(one, partials=False, session=session) as client:
        assert (client.messages[0]["resumed"], client.messages[0]["received_bytes"]) == (True, 3200)


def test_bad_opus_packets_are_passed_over_up_to_a_number(one: Running) -> None:
    with live(one, encoding="opus", partials=False) as client:
        for number, packet in enumerate(opus_packets(talk(1))):
            client.socket.send(packet)
            if number % 10 == 0 and number < 10 * MAX_BAD_MESSAGES:
                client.socket.send(b"")
        assert client.until("final")["text"]
        told = client.of("error")
        assert 0 < len(told) < MAX_BAD_MESSAGES
        assert all("not an opus packet" in message["error"]["message"] for message in told)
        for _ in range(MAX_BAD_MESSAGES + 1 - len(told)):
            client.socket.send(b"")
        assert client.close_code()[0] == 1008


def test_a_message_that_is_too_long(one: Running) -> None:
    """In two frames: the server reads no more of a frame that is too long, and a connection closed
    before all is read can lose the close code."""
    with live(one) as client:
        with suppress(ConnectionClosed):
            client.socket.send([bytes(1024 * 1024), bytes(2)])
        assert client.close_code()[0] == 1009


def test_while_loading_and_with_too_many(server: StartServer) -> None:
    loaded = threading.Event()

    def load() -> SpeechModel:
        assert loaded.wait(PATIENCE_S)
        return FakeModel()

    try:
        one = server(load, wait=False, max_live_sessions=1)
        with live(one, start=False) as client:
            assert client.close_code() == (1013, client.of("error")[0]["error"]["message"])
            assert "loading" in client.of("error")[0]["error"]["message"]
    finally:
        loaded.set()
    one.engine.wait_ready(PATIENCE_S)
    with live(one), live(one, start=False) as second:
        second.send(type="start")
        assert second.close_code()[0] == 1013
        assert second.of("error")[0]["error"]["code"] == "queue_full"
    one.eventually(lambda: one.metric("winnow_live_sessions") == 0)
    with live(one):
        assert one.metric("winnow_live_sessions") == 1


def test_a_client_that_says_nothing_is_let_go(server: StartServer) -> None:
    with live(server(live_idle_seconds=1)) as client:
        assert client.close_code()[0] == 1001
        assert client.of("error")[0]["error"]["code"] == "deadline_exceeded"


def test_a_drain_sends_finals_of_what_was_received(server: StartServer) -> None:
    one = server()
    audio = pcm(voice(1.5))
    with live(one, partials=False) as client:
        client.send_audio(audio)
        session = one.services.live.find(client.messages[0]["session"])
        assert session is not None
        one.eventually(lambda: session.received_bytes == len(audio))
        assert client.of("final") == []
        one.server.handle_exit(signal.SIGTERM, None)
        assert client.close_code() == (1012, "the service is shutting down")
        assert [final["text"] != "" for final in client.of("final")] == [True]
    one.eventually(lambda: one.engine.state == "stopped")


def test_an_utterance_that_fails_is_told_and_harms_no_other(server: StartServer) -> None:
    broken = [True]

    def once(mel_FT: torch.Tensor) -> bool:
        return float(mel_FT.max() - mel_FT.min()) > 0 and bool(broken) and broken.pop()

    one = server(lambda: FakeModel(fail_encode_when=once))
    client = whole(one, talk(1.5, 1.5), partials=False)
    first, second = client.of("final")
    assert (first["text"], first["error"]["code"]) == ("", "engine_error")
    assert (second["text"] != "", "error" in second) == (True, False)


def test_what_operators_see(server: StartServer) -> None:
    one = server()
    client = whole(one, talk(1.5, 1.5), profile="fast", partials=False)
    assert one.metric("winnow_live_final_seconds_count", profile="fast") == 2
    heard = sum(final["end"] - final["start"] for final in client.of("final"))
    assert one.metric("winnow_audio_seconds_total", profile="fast") == pytest.approx(
        heard, abs=0.01
    )
    one.eventually(lambda: one.metric("winnow_live_sessions") == 0)


def random_message(rng: random.Random) -> str | bytes:
    """Anything: noise, half of a right message, right ones in the wrong place."""
    right: list[Message] = [
        {"type": "start", "encoding": rng.choice(["opus", "pcm_s16le"])},
        {"type": "ack", "seq": rng.choice([0, 1, -1, 10**30, None, "1"])},
        {"type": rng.choice(["flush", "stop", "done", None, 7])},
        {"type": "start", "session": rng.choice(["x", 3]), "after": rng.choice([0, 5])},
    ]
    text = json.dumps(rng.choice(right))
    kinds: list[str | bytes] = [
        text,
        text[: rng.randrange(len(text))],
        rng.randbytes(rng.randrange(2000)),
        rng.randbytes(2 * rng.randrange(2000)),
        "".join(chr(rng.randrange(1, 0xD7FF)) for _ in range(rng.randrange(50))),
        b"",
    ]
    return rng.choice(kinds)


def test_no_message_kills_the_server(one: Running) -> None:
    rng = random.Random(0)
    known = {1000, 1008}
    for _ in range(60):
        with live(one, start=False) as client:
            if rng.random() < 0.7:
                client.send(type="start", encoding=rng.choice(["opus", "pcm_s16le"]))
            try:
                for _ in range(rng.randrange(1, 20)):
                    client.socket.send(random_message(rng))
                client.send(type="stop")
            except ConnectionClosed:
                pass
            assert client.close_code()[0] in known, client.messages
    assert one.client.get("/healthz").status_code == 200
    assert whole(one, talk(1)).text


def test_who_is_refused_with_more_on_the_way_is_let_go_at_once(one: Running) -> None:
    """Not when the close handshake is given up, 10 s later: theirs is behind what nobody reads."""
    with live(one) as client:
        began = time.monotonic()
        client.socket.send("[]")
        with suppress(ConnectionClosed):  # being let go may overtake what is still being sent
            for _ in range(50):
                client.socket.send(bytes(2000))
        assert client.close_code()[0] == 1008
        assert time.monotonic() - began < 8


@pytest.fixture(scope="module")
def real(tiny_en: Whisper) -> Iterator[Running]:
    with running(lambda: tiny_en) as server:
        yield server


@pytest.mark.model
@pytest.mark.parametrize("encoding", ["pcm_s16le", "opus"])
def test_a_real_model_reads_the_sample_as_it_does_whole(real: Running, encoding: str) -> None:
    answer = real.transcribe(SAMPLE.read_bytes()).json()
    audio = (samples_of(SAMPLE) * 32767).astype("<i2").tobytes() + pcm(silence(1))
    with live(real, encoding=encoding, partials=False) as client:
        for message in opus_packets(audio) if encoding == "opus" else [audio]:
            client.socket.send(message)
        heard = client.until("final")["text"]
    assert normalised(heard) == normalised(answer["text"]) == normalised(SAID)


@pytest.mark.model
def test_partials_of_real_speech_are_its_beginning(real: Running) -> None:
    audio = (samples_of(SAMPLE) * 32767).astype("<i2").tobytes()
    with live(real) as client:
        client.send_audio(audio[: len(audio) // 2])
        partial = client.until("partial")
        client.send_audio(audio[len(audio) // 2 :] + pcm(silence(1)))
        final = client.until("final")
    assert final["id"] == partial["id"]
    assert normalised(partial["text"]).split()[:3] == normalised(SAID).split()[:3]
    assert normalised(final["text"]) == normalised(SAID)
