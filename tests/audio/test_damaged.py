"""What is cut off or damaged is read as far as it goes, and each loss is named with its times."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from service.audio.decode import decode
from service.errors import InvalidAudio
from service.types import Audio, Samples

from .files import RATE, by_libav, by_soundfile, noise, tone

SECONDS = 5
KINDS: dict[str, Callable[[Samples], bytes]] = {
    "wav": lambda sound: by_soundfile(sound, "WAV"),
    "wav float": lambda sound: by_soundfile(sound, "WAV", "FLOAT"),
    "rf64": lambda sound: by_soundfile(sound, "RF64"),
    "w64": lambda sound: by_soundfile(sound, "W64"),
    "aiff": lambda sound: by_soundfile(sound, "AIFF"),
    "caf": lambda sound: by_soundfile(sound, "CAF"),
    "au": lambda sound: by_soundfile(sound, "AU"),
    "flac": lambda sound: by_soundfile(sound, "FLAC"),
    "vorbis": lambda sound: by_soundfile(sound, "OGG", "VORBIS"),
    "opus": lambda sound: by_soundfile(sound, "OGG", "OPUS"),
    "mp3": lambda sound: by_soundfile(sound, "MP3"),
    "live mp3": lambda sound: by_libav(sound, "mp3", "libmp3lame", seekable=False),
    "adts": lambda sound: by_libav(sound, "adts", "aac"),
    "fragmented": lambda sound: by_libav(
        sound, "mp4", "aac", options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "webm": lambda sound: by_libav(np.repeat(sound, 3), "webm", "libopus", 48_000),
    "live webm": lambda sound: by_libav(
        np.repeat(sound, 3), "webm", "libopus", 48_000, seekable=False
    ),
    "matroska": lambda sound: by_libav(sound, "matroska", "aac"),
}
PROMISES = (
    "wav",
    "wav float",
    "rf64",
    "w64",
    "aiff",
    "caf",
    "au",
    "flac",
    "mp3",
    "fragmented",
    "webm",
    "matroska",
)


def read(data: bytes) -> Audio:
    return decode(io.BytesIO(data), 600)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_has_no_losses(kind: str) -> None:
    audio = read(KINDS[kind](noise(SECONDS)))
    assert audio.losses == ()
    assert audio.duration_s == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_of_a_file_that_is_cut_off(kind: str, share: float) -> None:
    whole = KINDS[kind](noise(SECONDS))
    audio = read(whole[: int(len(whole) * share)])
    assert 0.1 * SECONDS < audio.duration_s < (share + 0.05) * SECONDS
    (loss,) = audio.losses
    assert loss.code == "damaged_audio"
    assert "cut off" in loss.message
    assert loss.start == pytest.approx(audio.duration_s, abs=0.01)
    if kind in PROMISES:
        assert loss.end == pytest.approx(SECONDS, abs=0.15)
        assert "promises" in loss.message
    else:
        assert loss.end is None


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_mp4_whose_index_comes_first(tmp_path: Path, share: float) -> None:
    """As the web serves it."""
    path = tmp_path / "faststart"
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(SECONDS)[None], "fltp", "mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    audio = read(data[: int(len(data) * share)])
    (loss,) = audio.losses
    assert loss.start == pytest.approx(audio.duration_s, abs=0.1)
    assert loss.end == pytest.approx(SECONDS, abs=0.15)


def test_a_cut_mp4_whose_index_was_to_come_last() -> None:
    data = by_libav(noise(SECONDS), "mp4", "aac")
    with pytest.raises(InvalidAudio, match="its index"):
        read(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["m4a", "flac", "opus", "live mp3", "adts", "fragmented"])
def test_sixty_damaged_bytes_in_the_middle(kind: str) -> None:
    """Little is lost, named where it was, and what follows stays where it is."""
    make = KINDS | {
        "m4a": lambda sound: by_libav(sound, "mp4", "aac"),
        "mpegts": lambda sound: by_libav(sound, "mpegts", "aac"),
    }
    sound = 0.1 * noise(10)
    sound[8 * RATE : 9 * RATE] += tone(1)
    data = bytearray(make[kind](sound))
    at = len(data) // 2
    data[at : at + 60] = random.Random(0).randbytes(60)
    audio = read(bytes(data))
    assert audio.duration_s == pytest.approx(10, abs=0.15)
    (loss,) = audio.losses
    assert loss.start is not None
    assert loss.end is not None
    assert 4 < loss.start < loss.end < 6.5
    assert loss.end - loss.start < (1.1 if kind in ("vorbis", "opus") else 0.6)  # pages of 1 s
    loud = np.abs(audio.samples).reshape(-1)[: 10 * RATE] > 0.3
    assert loud.argmax() / RATE == pytest.approx(8, abs=0.1)


FRAGMENTS = {"frag_duration": "1000000"}


def marked() -> Samples:
    """Noise, and a tone that is heard from 8 s to 9 s, by which the clock is seen to be right."""
    sound = 0.1 * noise(10)
    sound[8 * RATE : 9 * RATE] += tone(1)
    return sound


def assert_is_marked(audio: Audio) -> None:
    assert audio.duration_s == pytest.approx(10, abs=0.15)
    assert (np.abs(audio.samples) > 0.3).argmax() / RATE == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize("seekable", [True, False])
def test_what_a_matroska_leaves_out_is_named(seekable: bool) -> None:
    """A damaged block takes the rest of its cluster with it, of which libav says nothing."""
    sound = np.repeat(marked(), 3)
    options = {"cluster_time_limit": "1000"}
    data = bytearray(by_libav(sound, "webm", "libopus", 48_000, options, seekable))
    at = data.index(b"\xa3", len(data) // 2)  # a block
    data[at : at + 60] = random.Random(0).randbytes(60)
    audio = read(bytes(data))
    assert_is_marked(audio)
    (loss,) = audio.losses
    assert loss.start is not None
    assert loss.end is not None
    assert 4 < loss.start < loss.end < 6.5
    assert loss.end - loss.start > 0.1


@pytest.mark.parametrize("kind", ["live mp3", "adts"])
def test_zeros_in_the_place_of_sound_are_no_padding(kind: str) -> None:
    data = bytearray(KINDS[kind](marked()))
    begin, end = len(data) // 4, len(data) // 2
    assert end - begin > 5000  # more than is looked at for a tag
    data[begin:end] = bytes(end - begin)
    audio = read(bytes(data))
    assert_is_marked(audio)
    (loss,) = audio.losses
    assert loss.start == pytest.approx(2.5, abs=0.3)
    assert loss.end == pytest.approx(5, abs=0.3)


def test_an_ogg_whose_first_page_of_sound_is_lost_begins_with_silence() -> None:
    data = bytearray(by_soundfile(marked(), "OGG", "OPUS"))
    at = -1
    for _ in range(3):  # after two pages of headers
        at = data.index(b"OggS", at + 1)
    data[at + 100] ^= 1
    audio = read(bytes(data))
    assert_is_marked(audio)
    (loss,) = audio.losses
    assert loss.start == 0
    assert loss.end == pytest.approx(1, abs=0.1)


def test_a_flac_whose_last_frame_is_lost_says_so() -> None:
    data = bytearray(by_soundfile(noise(2.1), "FLAC"))  # 33,600 samples: the last frame has 832
    data[-60:] = bytes(60)
    (loss,) = read(bytes(data)).losses
    assert loss.start == pytest.approx(8 * 4096 / RATE, abs=0.001)
    assert loss.end == pytest.approx(2.1, abs=0.001)


@pytest.mark.parametrize("flags", ["", "+default_base_moof"])
def test_fragments_after_a_damaged_one_are_read(flags: str) -> None:
    options = FRAGMENTS | {"movflags": f"frag_keyframe+empty_moov{flags}"}
    data = bytearray(by_libav(marked(), "mp4", "aac", options=options))
    at = data.index(b"moof", len(data) // 2)
    data[at - 100 : at + 60] = bytes(160)
    audio = read(bytes(data))
    assert_is_marked(audio)
    (loss,) = audio.losses
    assert loss.start is not None
    assert loss.end is not None
    assert 4 < loss.start < loss.end < 7.2
