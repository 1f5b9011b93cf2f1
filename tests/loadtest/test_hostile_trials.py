"""What the hostile drill sends."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from websockets.frames import Frame
from websockets.protocol import State
from websockets.server import ServerProtocol

from loadtest.hostile.connections import CONNECTIONS
from loadtest.hostile.damage import DAMAGE, damaged
from loadtest.hostile.drill import KINDS, trial
from loadtest.hostile.forms import FORMS
from loadtest.hostile.frames import FRAMES, audio, text
from loadtest.hostile.recordings import WRITTEN, recordings
from loadtest.hostile.sockets import BINARY, TEXT, close, close_code, frame, handshake, pieces
from loadtest.hostile.structures import MADE
from loadtest.hostile.trials import LIVE, REALTIME, Due, Target
from service.audio.decode import decode

TARGET = Target("127.0.0.1:8000")


def digest(numbers: Sequence[int]) -> str:
    whole = hashlib.sha256()
    for number in numbers:
        one = trial(3, number, TARGET)
        whole.update(repr((one.kind, one.what, one.path, one.due.name)).encode())
        whole.update(repr([(send.pause_s, send.answered) for send in one.sends]).encode())
        whole.update(one.content)
    return whole.hexdigest()


def test_a_seed_and_a_number_are_one_trial_in_any_process() -> None:
    code = "from tests.loadtest.test_hostile_trials import digest; print(digest(range(60)))"
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert other.stdout.strip() == digest(range(60))


def test_a_trial_does_not_hang_on_those_before_it() -> None:
    alone = trial(3, 50, TARGET)
    for number in range(20):
        trial(3, number, TARGET)
    assert trial(3, 50, TARGET) == alone


def test_other_seeds_are_other_trials() -> None:
    assert trial(3, 50, TARGET).content != trial(4, 50, TARGET).content


def test_every_kind_has_its_share() -> None:
    kinds = Counter(trial(0, number, TARGET).kind for number in range(600))
    assert set(kinds) == set(KINDS)
    assert all(kinds[kind] > 3 * weight for kind, (weight, _) in KINDS.items())


def test_a_prefix_goes_before_every_path() -> None:
    one = next(t for t in (trial(0, n, TARGET) for n in range(99)) if t.kind == "file")
    behind = trial(0, one.number, Target("127.0.0.1:8000", "/speech"))
    assert behind.content.startswith(f"POST /speech{one.path} ".encode())


@pytest.mark.parametrize("number", range(len(WRITTEN)))
def test_undamaged_recordings_can_be_read_or_are_another_codec(number: int) -> None:
    """What is damaged has to be something to begin with."""
    if number >= len(recordings()):
        pytest.skip("not in this build of FFmpeg")
    assert len(recordings()[number].content) > 500


def test_recordings_are_of_many_containers() -> None:
    assert len({one.name.split("/")[0] for one in recordings()}) > 20


def test_most_recordings_are_read_by_the_service() -> None:
    import io

    named = [one for one in recordings() if one.name.split("/")[0] in ("wav", "flac", "mp3", "ogg")]
    for one in named:
        assert decode(io.BytesIO(one.content), 60.0).duration_s == pytest.approx(1.5, abs=0.3)


@pytest.mark.parametrize("number", range(len(DAMAGE)))
def test_every_damage_changes_something(number: int) -> None:
    _, change = DAMAGE[number]
    content = Random(0).randbytes(4000)
    changed = [change(content, Random(seed)) != content for seed in range(20)]
    assert sum(changed) > 15


def test_damage_to_almost_nothing_leaves_something() -> None:
    for seed in range(300):
        content, names = damaged(b"a", Random(seed))
        assert content
        assert names


@pytest.mark.parametrize("number", range(len(MADE)), ids=[name for name, _ in MADE])
def test_every_structure_is_made(number: int) -> None:
    _, make = MADE[number]
    assert len({make(Random(seed)) for seed in range(6)}) > 1


@pytest.mark.parametrize("number", range(len(FORMS)), ids=[name for name, _ in FORMS])
def test_every_form_is_one_request(number: int) -> None:
    _, make = FORMS[number]
    for seed in range(8):
        path, (send,), due = make(Random(seed), TARGET)
        head, _, body = send.data.partition(b"\r\n\r\n")
        assert head.startswith(f"POST {path} HTTP/1.1\r\n".encode())
        if due is Due.ANSWER and b"Content-Length" in head:
            assert f"Content-Length: {len(body)}".encode() in head


@pytest.mark.parametrize("number", range(len(CONNECTIONS)), ids=[name for name, _ in CONNECTIONS])
def test_every_connection_is_made(number: int) -> None:
    _, make = CONNECTIONS[number]
    for seed in range(20):
        _, sends, due = make(Random(seed), TARGET)
        assert sends
        assert due is not Due.SOCKET


# Frames, as a WebSocket library reads them


def read(*sent: bytes) -> tuple[ServerProtocol, list[Frame]]:
    server = ServerProtocol()
    server.receive_data(handshake(TARGET, LIVE, bytes(16)))
    (request,) = server.events_received()
    server.send_response(server.accept(request))  # type: ignore[arg-type]
    for one in sent:
        server.receive_data(one)
    return server, [event for event in server.events_received() if isinstance(event, Frame)]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_001])
def test_a_frame_is_read_as_it_was_meant(size: int) -> None:
    payload = Random(size).randbytes(size)
    _, (got,) = read(frame(BINARY, payload))
    assert got.data == payload


def test_fragments_are_one_message() -> None:
    for seed in range(10):
        payload = Random(seed).randbytes(500)
        server, got = read(pieces(TEXT, payload, Random(seed)))
        assert server.parser_exc is None
        assert b"".join(bytes(one.data) for one in got) == payload
        assert [one.fin for one in got] == [False] * (len(got) - 1) + [True]


def test_the_code_of_a_close_frame_is_found_behind_others() -> None:
    server, _ = read(close(1000))
    assert server.state is State.CLOSING
    assert close_code(b"".join(server.data_to_send())[-4:]) == 1000
    unmasked = b"\x81\x02{}" + b"\x82\x7e\x01\x00" + bytes(256)
    assert close_code(unmasked + b"\x88\x02\x03\xf1") == 1009
    assert close_code(unmasked + b"\x88\x00") == 1005
    assert close_code(unmasked + b"\x88\x02\x03") is None
    assert close_code(unmasked) is None


@pytest.mark.parametrize("path", [LIVE, REALTIME])
@pytest.mark.parametrize("number", range(len(FRAMES)), ids=[name for name, _ in FRAMES])
def test_every_conversation_is_made(number: int, path: str) -> None:
    _, make = FRAMES[number]
    for seed in range(12):
        assert make(Random(seed), path)


def test_audio_goes_as_each_socket_takes_it() -> None:
    _, (live, realtime) = read(audio(b"abc", LIVE), audio(b"abc", REALTIME))
    assert (live.opcode, bytes(live.data)) == (BINARY, b"abc")
    assert bytes(realtime.data) == b'{"type": "input_audio_buffer.append", "audio": "YWJj"}'
    assert text({"a": "\ud800"})
