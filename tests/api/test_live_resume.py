"""Connections that break, clients that vanish, slow servers: no text lost, none doubled."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.families.fake import FakeModel
from service.live.session import Session
from service.types import SAMPLE_RATE

from .conftest import StartServer
from .harness import PATIENCE_S, Gate, Running, running, silence, voice
from .live_client import LiveClient, Message, live, opus_packets, pcm, talk, whole
from .live_proxy import breaking

DOCS = Path(__file__).resolve().parents[2] / "docs" / "live.md"
AUDIO = talk(1.5, 1, 2, 1)


@pytest.fixture(scope="module")
def one() -> Iterator[Running]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def undisturbed(one: Running) -> list[Message]:
    finals = whole(one, AUDIO, partials=False).of("final")
    assert len(finals) == 4
    assert all(final["text"] for final in finals)
    return finals


def session_of(server: Running, client: LiveClient) -> Session:
    session = server.services.live.find(client.messages[0]["session"])
    assert session is not None
    return session


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("read", [True, False], ids=["reads", "does not read"])
def test_killed_halfway_and_resumed(
    one: Running, undisturbed: list[Message], share: float, read: bool
) -> None:
    """Whatever was sent, and whether or not the client saw the finals that were sent to it."""
    cut = int(share * len(AUDIO)) // 2 * 2
    with live(one, partials=False) as first:
        first.send_audio(AUDIO[:cut], step=3200)
        session = session_of(one, first)
        one.eventually(lambda: session.received_bytes == cut)
        while read and len(first.of("final")) < session.last_seq:
            first.next()
        first.vanish()
    seen = first.of("final")
    fields: dict[str, Any] = {"session": session.id, "after": len(seen), "partials": False}
    with live(one, **fields) as second:
        ready = second.messages[0]
        assert (ready["resumed"], ready["received_bytes"]) == (True, cut)
        second.send_audio(AUDIO[cut:])
        second.send(type="stop")
        second.until("done")
    assert seen + second.of("final") == undisturbed


def test_killed_many_times(one: Running, undisturbed: list[Message]) -> None:
    """Each connection sends a second and dies in the middle of what it sends."""
    finals: list[Message] = []
    fields: dict[str, Any] = {"partials": False}
    for _ in range(100):
        with live(one, **fields) as client:
            at = client.messages[0]["received_bytes"]
            client.send_audio(AUDIO[at : at + 32_000], step=1000)
            session = session_of(one, client)
            if at + 32_000 >= len(AUDIO):
                client.send(type="stop")
                client.until("done")
                finals += client.of("final")
                break
            one.eventually(lambda: session.received_bytes > at)  # noqa: B023
            client.vanish()
        finals += client.of("final")
        fields |= {"session": session.id, "after": len(finals)}
    assert finals == undisturbed


def test_opus_goes_on_after_the_packet_that_was_received_last(
    one: Running,
) -> None:
    packets = opus_packets(AUDIO)
    fields: dict[str, Any] = {"encoding": "opus", "partials": False}
    with live(one, **fields) as client:
        for packet in packets:
            client.socket.send(packet)
        client.send(type="stop")
        client.until("done")
        expected = client.of("final")
    with live(one, **fields) as first:
        for packet in packets[:150]:
            first.socket.send(packet)
        session = session_of(one, first)
        one.eventually(lambda: session.received_bytes == sum(map(len, packets[:150])))
        first.vanish()
    with live(one, session=session.id, **fields) as second:
        received, number = second.messages[0]["received_bytes"], 0
        while received:
            received -= len(packets[number])
            number += 1
        assert number == 150
        for packet in packets[number:]:
            second.socket.send(packet)
        second.send(type="stop")
        second.until("done")
    assert second.of("final") == expected


def test_acknowledged_finals_are_forgotten(one: Running) -> None:
    with live(one, partials=False) as first:
        first.send_audio(AUDIO)
        for _ in range(2):
            first.until("final")
        first.send(type="ack", seq=1)
        session = session_of(one, first)
        one.eventually(lambda: session.unacknowledged()[0].seq == 2)
    with live(one, start=False) as late:
        late.send(type="start", session=session.id, after=0, partials=False)
        assert late.close_code()[0] == 1008
        assert "before 2 are forgotten" in late.of("error")[0]["error"]["message"]
    with live(one, session=session.id, after=1, partials=False) as second:
        assert second.until("final")["seq"] == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"after": 9}, "after"), ({"profile": "fast"}, "session"), ({"partials": True}, "session")],
)
def test_a_resumption_that_cannot_be_right(
    one: Running, fields: dict[str, Any], param: str
) -> None:
    with live(one, partials=False) as first:
        session = first.messages[0]["session"]
    with live(one, start=False) as second:
        second.send(**{"type": "start", "session": session, "partials": False, **fields})
        assert second.close_code()[0] == 1008
        assert second.of("error")[0]["error"]["param"] == param


def test_a_new_connection_takes_a_session_over(one: Running, undisturbed: list[Message]) -> None:
    """The server may not know yet that the old one is dead."""
    with live(one, partials=False) as first:
        first.send_audio(AUDIO[:64_000])
        first.until("final")
        session = session_of(one, first)
        one.eventually(lambda: session.received_bytes == 64_000)
        with live(one, session=session.id, after=1, partials=False) as second:
            assert first.close_code()[0] == 4001
            second.send_audio(AUDIO[second.messages[0]["received_bytes"] :])
            second.send(type="stop")
            second.until("done")
    assert first.of("final") + second.of("final") == undisturbed


def test_a_client_that_vanishes_has_its_work_withdrawn_and_kept(server: StartServer) -> None:
    gate = Gate()
    one = server(lambda: FakeModel(fail_encode_when=gate))
    try:
        with live(one, partials=False) as first:
            first.send_audio(talk(1.5, 1.5))
            assert gate.reached.wait(PATIENCE_S)
            session = session_of(one, first)
            one.eventually(lambda: len(session.spoken) == 2)
            assert one.engine.num_outstanding == 1
            first.vanish()
        one.eventually(lambda: one.engine.num_outstanding == 0)
        one.eventually(lambda: one.metric("winnow_live_sessions") == 0)
        assert one.metric("winnow_cancelled_total", reason="client_gone") == 1
        assert (len(session.spoken), session.last_seq) == (2, 0)
    finally:
        gate.opened.set()
    with live(one, session=session.id, partials=False) as second:
        second.send(type="stop")
        assert second.until("done")["seq"] == 2
        assert all(final["text"] for final in second.of("final"))


def test_a_session_is_forgotten_in_the_end(server: StartServer) -> None:
    one = server(live_keep_seconds=1)
    with live(one) as first:
        session = first.messages[0]["session"]
    one.eventually(lambda: one.services.live.find(session) is None)
    with live(one, session=session, after=3) as second:
        ready = second.messages[0]
        assert (ready["resumed"], ready["received_bytes"]) == (False, 0)
        assert ready["session"] != session


def test_no_more_sessions_are_kept_than_may_be_connected(server: StartServer) -> None:
    one = server(max_live_sessions=2)
    sessions = []
    for number in range(3):
        with live(one) as client:
            sessions.append(client.messages[0]["session"])
        one.eventually(lambda: one.metric("winnow_live_sessions") == 0)
        assert one.services.live.find(sessions[number]) is not None
    assert [one.services.live.find(session) is not None for session in sessions] == [
        False,
        True,
        True,
    ]


def test_a_slow_server_holds_its_client_back(
    server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device stands still: the client's send blocks, and what is held stays under the cap."""
    cap_s, held = 40, [0]
    take = Session.take

    def watched(session: Session, part: bytes) -> None:
        take(session, part)
        held.append(session.buffered)

    monkeypatch.setattr(Session, "take", watched)
    gate = Gate()
    one = server(lambda: FakeModel(fail_encode_when=gate), live_buffer_seconds=cap_s)
    second = pcm(voice(1))
    num_sent, closing = 0, threading.Event()

    def send() -> None:
        nonlocal num_sent
        with suppress(Exception):
            while not closing.is_set():
                client.socket.send(second)
                num_sent += 1

    try:
        with live(one, partials=False) as client:
            session = session_of(one, client)
            sender = threading.Thread(target=send)
            sender.start()
            one.eventually(lambda: not session.has_room)
            one.eventually(lambda: _stands_still(lambda: num_sent))
            # What is on its way is in the two sockets' buffers, which are some megabytes.
            received = session.received_bytes
            assert sender.is_alive()
            assert received < num_sent * len(second) < received + 64 * 1024 * 1024
            assert max(held) <= cap_s * SAMPLE_RATE
            gate.opened.set()
            one.eventually(lambda: session.received_bytes > received + 40 * len(second))
            assert client.until("final")["seq"] == 1
            closing.set()
            client.vanish()
            sender.join(PATIENCE_S)
            assert not sender.is_alive()
    finally:
        closing.set()
        gate.opened.set()
    assert max(held) <= cap_s * SAMPLE_RATE


def _stands_still(value: Callable[[], int]) -> bool:
    """Whether nothing changes while the reader has a hundred chances."""
    before = value()
    return not threading.Event().wait(1.0) and value() == before


def example() -> Callable[[str, bytes], Awaitable[str]]:
    """The client of the documentation, as it stands there."""
    found = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    names: dict[str, Any] = {}
    exec(found.group(1), names)
    client: Callable[[str, bytes], Awaitable[str]] = names["transcribe"]
    return client


@pytest.mark.parametrize("after_bytes", [[], [70_000], [100, 40_000, 90_000]])
def test_the_example_of_the_documentation(
    one: Running, undisturbed: list[Message], after_bytes: list[int]
) -> None:
    with breaking(one, after_bytes) as url:
        text = asyncio.run(asyncio.wait_for(example()(url, AUDIO), PATIENCE_S))
    assert text == " ".join(final["text"] for final in undisturbed)


def test_the_example_goes_on_with_another_server(one: Running) -> None:
    """Which knows nothing of the session: it begins anew after the last final."""
    audio = pcm(voice(1.5)) + pcm(silence(2)) + pcm(voice(1, 180)) + pcm(silence(1))
    expected = whole(one, audio, partials=False).of("final")
    with running() as other, breaking(one, [85_000], then=other) as url:
        text = asyncio.run(asyncio.wait_for(example()(url, audio), PATIENCE_S))
        assert other.metric("winnow_live_final_seconds_count", profile="dense") >= 1
    assert len(expected) == 2
    assert text == " ".join(final["text"] for final in expected)
