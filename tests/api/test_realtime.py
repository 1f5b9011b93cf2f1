"""Transcription sessions of OpenAI's Realtime, with OpenAI's own client."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from websockets.exceptions import ConnectionClosed

from service.families.fake import FakeModel
from service.families.whisper import Whisper
from service.live.session import Session
from service.types import SAMPLE_RATE
from tests.audio.test_stream import as_g711
from tests.speech import GERMAN, GERMAN_SAID, SAID, SAMPLE, normalised, samples_of

from .conftest import StartServer
from .harness import PATIENCE_S, Gate, Running, remembered, running, silence, voice
from .live_client import live, pcm, talk
from .realtime_client import Client, at_24k, openai_realtime

# OpenAI's client uses websockets in a way that its newest version would rather not see.
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")

DOCS = Path(__file__).resolve().parents[2] / "docs" / "realtime.md"
LOGPROBS = "item.input_audio_transcription.logprobs"
CHUNK_MS = 32
G711 = {"audio/pcmu": "mulaw", "audio/pcma": "alaw"}


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    """A server for the tests that leave it as it was."""
    with running() as server:
        yield server


def by_commit(client: Client) -> None:
    client.update(turn_detection=None)


def kinds(client: Client) -> list[str]:
    """What came after the settings, shortened."""
    types = [event.type for event in client.events if not event.type.startswith("session.")]
    return [one.removeprefix("input_audio_buffer.").rpartition("conversation.")[2] for one in types]


ITEM = ["committed", "item.added", "item.done"]
TEXT = ["item.input_audio_transcription.delta", "item.input_audio_transcription.completed"]


def test_a_pause_ends_an_item(one: Running) -> None:
    with openai_realtime(one) as client:
        client.append(at_24k(pcm(voice(1.5)) + pcm(silence(1))))
        done = client.until("transcription.completed")
    assert kinds(client) == ["speech_started", "speech_stopped", *ITEM, *TEXT]
    assert done.transcript == one.transcribe(voice(1.5)).json()["text"] != ""
    (delta,) = client.of(".delta")
    assert (delta.delta, delta.content_index, done.content_index) == (done.transcript, 0, 0)
    assert [language.code for language in done.languages] == ["en"]
    assert done.usage.type == "duration"
    ids = {event.item_id for event in client.events if getattr(event, "item_id", None)}
    (added,) = client.of("item.added")
    assert ids == {done.item_id} == {added.item.id}
    assert (added.item.role, added.item.content[0].type) == ("user", "input_audio")
    assert len({event.event_id for event in client.events}) == len(client.events)


def test_items_come_in_order_and_name_the_one_before(one: Running) -> None:
    with openai_realtime(one) as client:
        client.append(at_24k(talk(1.5, 1)))
        first = client.until("transcription.completed")
        second = client.until("transcription.completed")
    before = [event.previous_item_id for event in client.of("buffer.committed")]
    assert before == [None, first.item_id]
    assert [event.previous_item_id for event in client.of("item.added")] == before
    assert first.item_id != second.item_id
    assert first.transcript != second.transcript != ""


@pytest.mark.parametrize(("prefix_ms", "silence_ms"), [(300, 500), (64, 320), (640, 960)])
def test_times_are_those_of_the_audio_with_its_padding(
    one: Running, prefix_ms: int, silence_ms: int
) -> None:
    vad = {
        "type": "server_vad",
        **{"prefix_padding_ms": prefix_ms, "silence_duration_ms": silence_ms},
    }
    with openai_realtime(one, turn_detection=vad) as client:
        client.append(at_24k(pcm(silence(1)) + pcm(voice(1.5)) + pcm(silence(1.5))))
        done = client.until("transcription.completed")
    (started,), (stopped,) = client.of("speech_started"), client.of("speech_stopped")
    assert abs(started.audio_start_ms - (1000 - prefix_ms)) <= 2 * CHUNK_MS
    assert abs(stopped.audio_end_ms - (2500 + silence_ms)) <= 4 * CHUNK_MS
    heard_s = (stopped.audio_end_ms - started.audio_start_ms) / 1000
    assert done.usage.seconds == pytest.approx(heard_s, abs=0.002)


def test_a_higher_threshold_hears_less(one: Running) -> None:
    with openai_realtime(one, turn_detection={"type": "server_vad", "threshold": 1}) as client:
        client.append(at_24k(talk(1)))
        client.commit()
        client.until("transcription.completed")
    assert client.of("speech_started") == []


def test_a_commit_ends_an_item_where_nothing_else_does(one: Running) -> None:
    with openai_realtime(one, turn_detection=None) as client:
        done = client.said(at_24k(pcm(voice(3.3))))
        assert done.transcript == one.transcribe(voice(3.3)).json()["text"] != ""
        assert done.usage.seconds == pytest.approx(3.3, abs=0.01)
        again = client.said(at_24k(pcm(voice(2, 150))))
    assert again.transcript == one.transcribe(voice(2, 150)).json()["text"] != ""
    assert again.usage.seconds == pytest.approx(2, abs=0.01)
    assert kinds(client) == [*ITEM, *TEXT, *ITEM, *TEXT]


def test_text_comes_before_the_commit_where_it_is_final(one: Running) -> None:
    with openai_realtime(one, turn_detection=None) as client:
        client.append(at_24k(pcm(voice(1.5)) + pcm(silence(1.5))))
        first = client.until(".delta")
        client.append(at_24k(pcm(voice(1, 150))))
        client.commit()
        done = client.until("transcription.completed")
    deltas = client.of(".delta")
    assert [delta.item_id for delta in deltas] == [done.item_id] * 2
    assert "".join(delta.delta for delta in deltas) == done.transcript
    assert first.delta == one.transcribe(voice(1.5)).json()["text"]
    assert client.of("speech_started") == []


def test_a_turn_longer_than_a_window_is_one_item(one: Running) -> None:
    with openai_realtime(one) as client:
        client.append(at_24k(pcm(voice(32)) + pcm(silence(1))))
        done = client.until("transcription.completed")
    assert (len(client.of("speech_started")), len(client.of("speech_stopped"))) == (1, 1)
    deltas = [delta.delta for delta in client.of(".delta")]
    assert (len(deltas), "".join(deltas)) == (2, done.transcript)
    assert len(done.transcript.split()) >= 32


def test_a_commit_while_somebody_speaks(one: Running) -> None:
    with openai_realtime(one) as client:
        done = client.said(at_24k(pcm(voice(1.5))))
        assert done.transcript
        client.append(at_24k(pcm(voice(1)) + pcm(silence(1))))
        client.until("transcription.completed")
    started, stopped = client.of("speech_started"), client.of("speech_stopped")
    assert [event.item_id for event in stopped] == [started[1].item_id] != [done.item_id]
    assert started[1].audio_start_ms >= 1500


def test_nobody_speaks_and_that_is_what_is_said(one: Running) -> None:
    with openai_realtime(one, turn_detection=None) as client:
        done = client.said(at_24k(pcm(silence(1))))
    assert (done.transcript, done.usage.seconds, done.languages) == ("", 1, [])
    assert client.of(".delta") == []


def test_what_was_cleared_is_not_heard(one: Running) -> None:
    with openai_realtime(one, turn_detection=None) as client:
        client.append(at_24k(pcm(voice(1.5))))
        client.connection.input_audio_buffer.clear()
        client.until("input_audio_buffer.cleared")
        client.commit()
        assert client.until("error").error.code == "input_audio_buffer_commit_empty"
        done = client.said(at_24k(pcm(voice(2, 150))))
    assert done.transcript == one.transcribe(voice(2, 150)).json()["text"]
    assert done.usage.seconds == 2


def test_times_go_on_after_commits_and_clears(one: Running) -> None:
    """Neither shifts the clock, though they fall into the VAD's chunks."""
    with openai_realtime(one) as client:
        for _ in range(8):
            client.append(at_24k(pcm(silence(0.505))))
            client.commit()
            client.append(at_24k(pcm(silence(0.505))))
            client.connection.input_audio_buffer.clear()
        client.append(at_24k(pcm(silence(0.92)) + pcm(voice(1)) + pcm(silence(1))))
        started = client.until("speech_started")
        client.until("speech_stopped")
    assert abs(started.audio_start_ms - (9000 - 300)) <= 2 * CHUNK_MS


@pytest.mark.parametrize("step", [1, 333, 4801])
def test_messages_need_not_hold_whole_samples(one: Running, step: int) -> None:
    audio = at_24k(pcm(voice(0.5)) if step == 1 else pcm(voice(2)))
    with openai_realtime(one, turn_detection=None) as client:
        whole = client.said(audio)
        client.append(audio[:-2400], step)
        again = client.said(audio[-2400:])
    assert again.transcript == whole.transcript != ""


@pytest.mark.parametrize("kind", G711)
def test_g711_is_heard_as_pcm_is(one: Running, kind: str) -> None:
    samples = np.frombuffer(pcm(voice(2)), "<i2")[::2] / np.float32(32768)  # nothing above 4 kHz
    with openai_realtime(one, turn_detection=None) as client:
        plain = client.said(at_24k(pcm(voice(2))))
        shown = client.update(format={"type": kind})
        assert shown.audio.input.format.type == kind
        heard = client.said(as_g711(samples.astype(np.float32), G711[kind]))
    assert heard.transcript == plain.transcript != ""
    assert heard.usage.seconds == plain.usage.seconds == 2


def test_what_is_asked_of_the_decoder() -> None:
    with remembered() as (server, wishes):
        transcription = {
            **{"model": "whisper-1", "language": "de-DE"},
            **{"prompt": "ba be", "keywords": ["bo"]},
        }
        with openai_realtime(server, transcription=transcription, turn_detection=None) as client:
            client.said(at_24k(pcm(voice(1))))
            assert (wishes[-1].language, wishes[-1].languages) == ("de", ())
            assert len(wishes[-1].prompt) == 3
            shown = client.update(transcription={"languages": ["fr", "German"], "prompt": ""})
            said = shown.audio.input.transcription
            assert (said.language, said.languages) == (None, ["fr", "German"])
            client.said(at_24k(pcm(voice(1))))
            assert (wishes[-1].language, wishes[-1].languages) == (None, ("fr", "de"))
            assert len(wishes[-1].prompt) == 1


def test_the_model_names_the_profile(server: StartServer) -> None:
    mine = server()
    with openai_realtime(mine, query={"model": "whisper-1@fast"}, turn_detection=None) as client:
        assert client.events[0].session.audio.input.transcription.model == "whisper-1@fast"
        client.said(at_24k(pcm(voice(1))))
        client.update(transcription={"model": "whisper-1@balanced"})
        client.said(at_24k(pcm(voice(1))))
    for profile in ("fast", "balanced"):
        assert mine.metric("winnow_live_final_seconds_count", profile=profile) == 1


def test_each_utterance_is_made_as_was_asked_when_it_was_said(server: StartServer) -> None:
    gate = Gate()
    mine = server(lambda: FakeModel(fail_encode_when=gate))
    dropped = {"profile": "balanced", "outcome": "dropped"}
    before = mine.metric("winnow_frames_total", **dropped)  # by the warm-up
    with openai_realtime(mine, query={"model": "whisper-1@fast"}, turn_detection=None) as client:
        client.append(at_24k(pcm(voice(1))))
        client.commit()
        assert gate.reached.wait(PATIENCE_S)
        client.append(at_24k(pcm(voice(1))))
        client.commit()
        client.update(transcription={"model": "whisper-1@balanced"})
        gate.opened.set()
        for _ in range(2):
            client.until("transcription.completed")
    assert mine.metric("winnow_live_final_seconds_count", profile="fast") == 2
    assert mine.metric("winnow_frames_total", **dropped) == before


def test_logprobs_where_they_are_asked_for(one: Running) -> None:
    with openai_realtime(one, turn_detection=None) as client:
        assert client.said(at_24k(pcm(voice(2)))).logprobs is None
        session = client.update(include=[LOGPROBS])
        assert session.include == [LOGPROBS]
        done = client.said(at_24k(pcm(voice(2))))
    text = b"".join(bytes(token.bytes) for token in done.logprobs).decode()
    assert text.strip() == done.transcript
    assert all(token.logprob < 0 for token in done.logprobs)
    assert client.of(".delta")[-1].logprobs == done.logprobs


def test_an_item_that_fails_is_told_and_harms_no_other(server: StartServer) -> None:
    broken = [True]

    def once(mel_FT: torch.Tensor) -> bool:
        return float(mel_FT.max() - mel_FT.min()) > 0 and bool(broken) and broken.pop()

    mine = server(lambda: FakeModel(fail_encode_when=once))
    with openai_realtime(mine, turn_detection=None) as client:
        failed = client.said(at_24k(pcm(voice(1))))
        assert (failed.type.rpartition(".")[2], failed.error.code) == ("failed", "engine_error")
        assert failed.item_id == client.of("buffer.committed")[0].item_id
        assert client.said(at_24k(pcm(voice(1)))).transcript


def test_a_drain_sends_what_was_received(server: StartServer) -> None:
    mine = server()
    with openai_realtime(mine) as client:
        client.append(at_24k(pcm(voice(1.5))))
        client.until("speech_started")
        mine.server.handle_exit(signal.SIGTERM, None)
        done = client.until("transcription.completed")
        assert done.transcript
        with pytest.raises(ConnectionClosed) as closed:
            client.next()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert kinds(client) == ["speech_started", *ITEM, *TEXT] or (
        kinds(client) == ["speech_started", TEXT[0], *ITEM, TEXT[1]]
    )


def test_a_session_ends_with_its_connection(server: StartServer) -> None:
    mine = server(max_live_sessions=1)
    with openai_realtime(mine) as client:
        session_id = client.events[0].session.id.removeprefix("sess_")
        assert mine.services.live.find(session_id) is not None
        assert mine.metric("winnow_live_sessions") == 1
    mine.eventually(lambda: mine.metric("winnow_live_sessions") == 0)
    assert mine.services.live.find(session_id) is None
    assert mine.metric("winnow_cancelled_total", reason="client_gone") == 0
    with live(mine):
        pass


def test_a_slow_server_holds_its_client_back(
    server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device stands still: what is held stays under the cap, and nothing is lost."""
    cap_s, held = 32, [0]
    take = Session.take

    def watched(session: Session, part: bytes) -> None:
        take(session, part)
        held.append(session.buffered)

    monkeypatch.setattr(Session, "take", watched)
    gate = Gate()
    mine = server(lambda: FakeModel(fail_encode_when=gate), live_buffer_seconds=cap_s)
    turns = 40
    audio = at_24k(pcm(voice(2)) + pcm(silence(0.8)))

    def send() -> None:
        with suppress(ConnectionClosed):
            for _ in range(turns):
                client.append(audio)

    with openai_realtime(mine) as client:
        session = mine.services.live.find(client.events[0].session.id.removeprefix("sess_"))
        assert session is not None
        sender = threading.Thread(target=send)
        sender.start()
        mine.eventually(lambda: not session.has_room)
        gate.opened.set()
        for _ in range(turns):
            assert client.until("transcription.completed").transcript
        sender.join(PATIENCE_S)
    assert max(held) <= cap_s * SAMPLE_RATE


def test_the_example_of_the_documentation(one: Running) -> None:
    found = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(found.group(1), names)
    said = names["transcribe"](f"{one.url}/v1", at_24k(pcm(voice(2))))
    assert said == one.transcribe(voice(2)).json()["text"] != ""


@pytest.fixture(scope="module")
def real(base: Whisper) -> Iterator[Running]:
    with running(lambda: base) as server:
        yield server


@pytest.mark.model
@pytest.mark.parametrize("detected", [True, False], ids=["server_vad", "commit"])
@pytest.mark.parametrize("kind", ["audio/pcm", *G711])
def test_a_real_model_reads_the_sample(real: Running, kind: str, detected: bool) -> None:
    samples = (samples_of(SAMPLE) * 32767).astype("<i2").tobytes() + pcm(silence(1))
    audio = at_24k(samples)
    if kind in G711:
        narrow = np.frombuffer(audio, "<i2").astype(np.float32)
        narrow = narrow[: len(narrow) // 3 * 3].reshape(-1, 3).mean(axis=1)
        audio = as_g711(narrow / np.float32(32768), G711[kind])
    with openai_realtime(real, format={"type": kind}) as client:
        if detected:
            client.append(audio)
            done = client.until("transcription.completed")
        else:
            by_commit(client)
            done = client.said(audio)
    assert normalised(done.transcript) == normalised(SAID)
    assert "".join(delta.delta for delta in client.of(".delta")) == done.transcript


@pytest.mark.model
def test_only_the_languages_asked_for_are_heard(real: Running) -> None:
    audio = at_24k((samples_of(GERMAN) * 32767).astype("<i2").tobytes())
    asked = {"languages": ["de", "en"]}
    with openai_realtime(real, turn_detection=None, transcription=asked) as client:
        done = client.said(audio)
        assert [language.code for language in done.languages] == ["de"]
        assert normalised(done.transcript) == normalised(GERMAN_SAID)
