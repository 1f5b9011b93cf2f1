"""Every kind of file that is not audio, has nothing in it that decodes, or would open another."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from service.audio.container import Nameless
from service.errors import InvalidAudio

from .files import by_soundfile, of, silence, tone


def refused(data: bytes) -> str:
    """The sentence of the InvalidAudio that `data` raises."""
    with pytest.raises(InvalidAudio) as raised:
        of(data)
    text = str(raised.value)
    assert text.endswith(".")
    assert "object at" not in text
    assert "<" not in text
    return text


def test_empty_file() -> None:
    assert "empty" in refused(b"")


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"hello, this is text\n" * 500,
        b"\0" * 10_000,
        b"\xff" * 10_000,
        b"\x89PNG\r\n\x1a\n" + bytes(2_000),
        b"%PDF-1.7\n" + b"x" * 2_000,
        b"PK\3\4" + bytes(2_000),
        b"<html><body>404</body></html>" * 40,
        np.random.default_rng(3).bytes(50_000),
        b"RIFF\0\0\0\0WAVE",
        b"OggS",
        b"fLaC",
        b"ID3\4\0\0\0\0\0\0",
        b"\x1aE\xdf\xa3",
        b"\x1aE\xdf\xa3" + bytes(100),
        b"\0\0\0\x18ftypM4A " + bytes(12),
        b"\0\0\0\1ftyp" + b"\xff" * 100,
    ],
)
def test_not_audio(data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    refused(data)
    assert capfd.readouterr().err == ""


def test_zero_length() -> None:
    assert "zero" in refused(by_soundfile(silence(0), "WAV"))
    refused(by_soundfile(silence(0), "FLAC"))


def test_video_without_sound() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(video.encode(None))
    assert "no audio track" in refused(buffer.getvalue())


def test_a_place_before_the_start() -> None:
    """Corrupt headers make libsndfile seek there; an exception in that call would be printed."""
    with tempfile.TemporaryFile() as file:
        assert Nameless(file).seek(-1) == -1
    assert Nameless(io.BytesIO()).seek(-1) == -1


@pytest.mark.parametrize("rate", [0, 1, 999, 10_000_000, 0xFFFF_FFFF])
def test_absurd_sample_rates(rate: int) -> None:
    data = bytearray(by_soundfile(tone(0.1), "WAV"))
    data[24:28] = struct.pack("<I", rate)
    refused(bytes(data))


@pytest.mark.parametrize("channels", [0, 65_535])
def test_absurd_channel_counts(channels: int) -> None:
    data = bytearray(by_soundfile(tone(0.1), "WAV"))
    data[22:24] = struct.pack("<H", channels)
    refused(bytes(data))


# ---- files that would open other files ----


def playlists(target: Path) -> Iterator[bytes]:
    yield f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n".encode()
    yield f"ffconcat version 1.0\nfile '{target}'\n".encode()
    yield b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n"
    yield (
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
        b"<AdaptationSet><Representation><BaseURL>" + str(target).encode() + b"</BaseURL>"
        b"</Representation></AdaptationSet></Period></MPD>"
    )


def test_playlists_open_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "secret.wav"
    target.write_bytes(by_soundfile(tone(1), "WAV"))
    monkeypatch.chdir(tmp_path)
    for path in (target, Path("secret.wav")):
        for playlist in playlists(path):
            assert "not an audio file" in refused(playlist)
    assert capfd.readouterr().err == ""
