"""Headers that count wrong, or were never filled in: what is there is read."""

from __future__ import annotations

import io
import struct

import pytest
import soundfile

from service.audio.decode import decode
from service.errors import InvalidAudio
from service.types import Audio

from .files import RATE, by_libav, by_soundfile, tone

BYTES = 2 * 2 * RATE  # of two seconds in 16 bits
NEVER_FILLED_IN = (0, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000, 0x8000_0000, 2_000_000_000)


def read(data: bytes) -> Audio:
    return decode(io.BytesIO(data), 600)


def patched(data: bytes, mark: bytes, offset: int, field: bytes) -> bytes:
    at = data.index(mark) + offset
    return data[:at] + field + data[at + len(field) :]


def assert_is_whole(data: bytes) -> None:
    audio = read(data)
    assert audio.losses == ()
    assert audio.duration_s == pytest.approx(2, abs=0.06)


@pytest.mark.parametrize("size", [*NEVER_FILLED_IN, 44, BYTES // 2, BYTES // 2 + 1])
def test_sizes_of_a_wav(size: int) -> None:
    data = patched(by_soundfile(tone(2), "WAV"), b"data", 4, struct.pack("<I", size))
    assert_is_whole(data)
    assert_is_whole(patched(data, b"RIFF", 4, struct.pack("<I", (size + 36) & 0xFFFF_FFFF)))


@pytest.mark.parametrize("size", NEVER_FILLED_IN)
def test_sizes_of_an_aiff_and_an_au(size: int) -> None:
    field = struct.pack(">I", size)
    assert_is_whole(patched(by_soundfile(tone(2), "AIFF"), b"SSND", 4, field))
    assert_is_whole(patched(by_soundfile(tone(2), "AU"), b".snd", 8, field))


@pytest.mark.parametrize("size", [0, -1, BYTES // 2, 10**13])
def test_sizes_of_64_bits(size: int) -> None:
    field = struct.pack("<q", size)
    assert_is_whole(patched(by_soundfile(tone(2), "RF64"), b"ds64", 16, field))
    assert_is_whole(patched(by_soundfile(tone(2), "W64"), b"data", 16, field))
    assert_is_whole(patched(by_soundfile(tone(2), "CAF"), b"data", 4, field[::-1]))


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("wav", "pcm_s16le"), ("w64", "pcm_s16le"), ("aiff", "pcm_s16be"), ("au", "pcm_s16be")],
)
def test_what_a_pipe_writes(kind: str, codec: str) -> None:
    assert_is_whole(by_libav(tone(2), kind, codec, seekable=False))


def test_big_endian_wav() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(2), RATE, format="WAV", endian="BIG")
    data = buffer.getvalue()
    assert data.startswith(b"RIFX")
    assert_is_whole(data)
    assert_is_whole(patched(data, b"data", 4, bytes(4)))


def test_chunks_after_the_samples_are_no_samples() -> None:
    data = by_soundfile(tone(2), "WAV")
    tail = b"LIST" + struct.pack("<I", 3200) + bytes(3200)
    assert len(read(data + tail).samples) == 2 * RATE


def test_a_promise_that_is_not_kept() -> None:
    """Three times as long, and no value that a writer puts before it knows."""
    data = patched(by_soundfile(tone(2), "WAV"), b"data", 4, struct.pack("<I", 3 * BYTES))
    (loss,) = read(data).losses
    assert loss.start == pytest.approx(2, abs=0.001)
    assert loss.end == pytest.approx(6, abs=0.001)
    assert "its header promises 6.0 s" in loss.message


@pytest.mark.parametrize("total", [0, 1000, (1 << 36) - 1])
def test_number_of_samples_of_a_flac(total: int) -> None:
    data = by_soundfile(tone(2), "FLAC")
    (field,) = struct.unpack(">Q", data[18:26])
    field = field >> 36 << 36 | total
    assert_is_whole(data[:18] + struct.pack(">Q", field) + data[26:])


@pytest.mark.parametrize("count", [0, 1, 20, 0xFFFF_FFFF])
def test_number_of_frames_of_an_mp3(count: int) -> None:
    data = by_soundfile(tone(2), "MP3")
    mark = b"Xing" if b"Xing" in data else b"Info"
    assert_is_whole(patched(data, mark, 8, struct.pack(">I", count)))


@pytest.mark.parametrize("duration", [0, 500, 0xFFFF_FFFF])
def test_duration_of_an_mp4(duration: int) -> None:
    data = by_libav(tone(2), "mp4", "aac")
    assert_is_whole_but_padding(patched(data, b"mvhd", 20, struct.pack(">I", duration)))
    assert_is_whole_but_padding(patched(data, b"mdhd", 20, struct.pack(">I", duration)))


def assert_is_whole_but_padding(data: bytes) -> None:
    audio = read(data)
    assert audio.losses == ()
    assert audio.duration_s == pytest.approx(2, abs=0.15)


def floods() -> dict[str, bytes]:
    empty = (b"junk" + bytes(4)) * 50_000
    wav, aiff = by_soundfile(tone(1), "WAV"), by_soundfile(tone(1), "AIFF")
    mp4, ogg = by_libav(tone(1), "mp4", "aac"), by_soundfile(tone(1), "OGG", "OPUS")
    return {
        "wav": wav[:12] + empty + wav[12:],
        "aiff": aiff[:12] + empty + aiff[12:],
        "mp4": mp4 + b"\0\0\0\x08free" * 50_000,
        "ogg": ogg + b"OggS\0" * 50_000,
    }


@pytest.mark.parametrize("kind", ["wav", "aiff", "mp4", "ogg"])
def test_empty_chunks_are_not_walked(kind: str) -> None:
    """Millions of them take whole seconds of everybody's time."""
    with pytest.raises(InvalidAudio, match=r"chunks|nothing in them"):
        read(floods()[kind])


def test_empty_chunks_after_the_samples_are_not_looked_at() -> None:
    assert_is_whole(by_soundfile(tone(2), "WAV") + (b"junk" + bytes(4)) * 50_000)
