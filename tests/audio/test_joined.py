"""Files that were joined are one recording, whole; tags and padding are no damage."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
import pytest

from service.audio.decode import decode
from service.errors import InvalidAudio
from service.types import Audio, Samples

from .files import RATE, by_libav, by_soundfile, tone

LOW, HIGH = 440.0, 880.0
ID3 = b"ID3\4\0\0\0\0\x07\x76" + bytes(1014)
ID3V1 = b"TAG" + bytes(125)
JUNK = random.Random(1).randbytes(3000)
KINDS: dict[str, Callable[[Samples, int], bytes]] = {
    "mp3": lambda sound, rate: by_soundfile(sound, "MP3", rate=rate),
    "live mp3": lambda sound, rate: by_libav(sound, "mp3", "libmp3lame", rate, seekable=False),
    "adts": lambda sound, rate: by_libav(sound, "adts", "aac", rate),
    "wav": lambda sound, rate: by_soundfile(sound, "WAV", rate=rate),
    "w64": lambda sound, rate: by_soundfile(sound, "W64", rate=rate),
    "aiff": lambda sound, rate: by_soundfile(sound, "AIFF", rate=rate),
    "caf": lambda sound, rate: by_soundfile(sound, "CAF", rate=rate),
    "flac": lambda sound, rate: by_soundfile(sound, "FLAC", rate=rate),
    "vorbis": lambda sound, rate: by_soundfile(sound, "OGG", "VORBIS", rate),
    "opus": lambda sound, rate: by_soundfile(sound, "OGG", "OPUS", rate),
    "m4a": lambda sound, rate: by_libav(sound, "mp4", "aac", rate),
    "webm": lambda sound, rate: by_libav(sound, "webm", "libopus", rate, seekable=False),
}


def read(data: bytes, max_seconds: float = 60) -> Audio:
    return decode(io.BytesIO(data), max_seconds)


def assert_is_low_then_high(audio: Audio) -> None:
    assert audio.losses == ()
    assert audio.duration_s == pytest.approx(4, abs=0.25)
    for second, hertz in ((0.5, LOW), (2.6, HIGH)):
        part = audio.samples[round(second * RATE) : round((second + 1) * RATE)]
        assert np.abs(np.fft.rfft(part)).argmax() == hertz


@pytest.mark.parametrize("kind", KINDS)
def test_two_recordings_in_one_file(kind: str) -> None:
    rate = 48_000 if kind == "webm" else RATE
    make = KINDS[kind]
    assert_is_low_then_high(read(make(tone(2, rate, LOW), rate) + make(tone(2, rate, HIGH), rate)))


@pytest.mark.parametrize("kind", ["mp3", "wav", "flac", "vorbis", "opus", "m4a"])
def test_the_second_at_another_rate(kind: str) -> None:
    make, other = KINDS[kind], 48_000
    assert_is_low_then_high(
        read(make(tone(2, RATE, LOW), RATE) + make(tone(2, other, HIGH), other))
    )


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", None)])
def test_the_second_in_stereo(kind: str, subtype: str | None) -> None:
    first = by_soundfile(tone(2, RATE, LOW), kind, subtype)
    assert_is_low_then_high(
        read(first + by_soundfile(tone(2, RATE, HIGH), kind, subtype, channels=2))
    )


def test_ogg_of_another_codec_after_ogg() -> None:
    first = by_soundfile(tone(2, RATE, LOW), "OGG", "OPUS")
    assert_is_low_then_high(read(first + by_soundfile(tone(2, RATE, HIGH), "OGG", "VORBIS")))


@pytest.mark.parametrize("kind", ["mp3", "live mp3", "adts"])
@pytest.mark.parametrize("between", [ID3, ID3V1, ID3V1 + ID3, bytes(3000)])
def test_tags_and_padding_in_the_middle(kind: str, between: bytes) -> None:
    make = KINDS[kind]
    assert_is_low_then_high(
        read(make(tone(2, RATE, LOW), RATE) + between + make(tone(2, RATE, HIGH), RATE))
    )


@pytest.mark.parametrize("kind", ["mp3", "live mp3", "adts"])
@pytest.mark.parametrize(
    ("before", "after"),
    [(ID3, ID3V1), (bytes(5000), b""), (bytes(300_000), b""), (JUNK, b""), (b"", JUNK)],
)
def test_tags_and_junk_around(kind: str, before: bytes, after: bytes) -> None:
    audio = read(before + KINDS[kind](tone(2), RATE) + after)
    assert audio.losses == ()
    assert audio.duration_s == pytest.approx(2, abs=0.15)


def test_a_joined_mp3_has_no_seam() -> None:
    """The encoder's delay is left out of the second as well as of the first."""
    data = KINDS["mp3"](tone(2), RATE)
    assert b"Xing" in data or b"Info" in data
    assert len(read(data * 3).samples) == 3 * 2 * RATE


def test_more_recordings_than_a_file_can_be() -> None:
    data = KINDS["wav"](tone(0.001), RATE)
    assert len(read(data * 1200).samples) == 1200 * 16
    with pytest.raises(InvalidAudio, match="more than 5,000 recordings"):
        read(data * 5100)


def test_an_mp3_damaged_thousands_of_times_is_read_on() -> None:
    data = KINDS["live mp3"](tone(0.3), RATE) + b"junk"
    audio = read(data * 5100, 3600)
    assert audio.duration_s > 5000 * 0.3
    assert len(audio.losses) == 1
