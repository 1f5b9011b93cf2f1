"""Every format by its content alone, and the sound as it was."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import soundfile

from service.audio.container import Seekable
from service.audio.decode import decode
from service.audio.libav import open_libav
from service.types import Notice, Samples

from .files import SPEECH_FILE, by_libav, by_soundfile, noise, of, silence, speech, tone

WAV_SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "MS_ADPCM")
SOUNDFILE_KINDS = (
    ("WAV", "PCM_16"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"),
)
LIBAV_KINDS = (
    ("mp4", "aac"),
    ("ipod", "aac"),
    ("adts", "aac"),
    ("matroska", "aac"),
    ("webm", "libopus"),
    ("ogg", "libopus"),
    ("mp3", "libmp3lame"),
    ("matroska", "pcm_s16le"),
    ("matroska", "pcm_f32le"),
    ("mov", "pcm_u8"),
    ("mov", "alac"),
    ("flac", "flac"),
)


def assert_is_tone(samples: Samples, seconds: float = 2.0, hertz: float = 440.0) -> None:
    """Length, pitch and loudness of `tone(seconds)`, encoder padding allowed."""
    assert abs(len(samples) / 16_000 - seconds) < 0.15
    middle = samples[8_000:24_000]
    spectrum = np.abs(np.fft.rfft(middle))
    assert spectrum.argmax() == hertz
    assert np.sqrt(np.square(middle).mean()) == pytest.approx(
        0.5 / np.sqrt(2), rel=0.15
    )  # opus is 11% off


@pytest.mark.parametrize("subtype", WAV_SUBTYPES)
def test_wav_of_any_width(subtype: str) -> None:
    assert_is_tone(of(by_soundfile(tone(2), "WAV", subtype)))


@pytest.mark.parametrize(("kind", "subtype"), SOUNDFILE_KINDS)
def test_formats_of_libsndfile(kind: str, subtype: str) -> None:
    assert_is_tone(of(by_soundfile(tone(2), kind, subtype)))


@pytest.mark.parametrize(("kind", "codec"), LIBAV_KINDS)
def test_formats_of_libav(kind: str, codec: str) -> None:
    rate = 48_000 if codec == "libopus" else 44_100
    assert_is_tone(of(by_libav(tone(2, rate), kind, codec, rate)))


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("webm", "libopus"), ("mp3", "libmp3lame"), ("flac", "flac"), ("wav", "pcm_s16le")],
)
def test_live_recordings_that_never_knew_their_length(kind: str, codec: str) -> None:
    """What a browser or a pipe writes: no duration, no count, no final header."""
    data = by_libav(tone(2, 48_000), kind, codec, 48_000, seekable=False)
    assert_is_tone(of(data))


def test_mp3_of_varying_rate_without_a_frame_count_is_read_to_its_end() -> None:
    """libsndfile guesses its length from the first frames, and stops there."""
    sound = np.concatenate([noise(2), silence(8), tone(2)])
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, 16_000, format="MP3", bitrate_mode="VARIABLE")
    data = buffer.getvalue()
    assert b"Xing" in data
    samples = of(data.replace(b"Xing", bytes(4), 1))
    assert len(samples) / 16_000 == pytest.approx(12, abs=0.2)
    assert np.abs(samples[-24_000:-8_000]).max() > 0.4


@pytest.mark.parametrize("kind", ["wav", "w64", "rf64"])
def test_samples_are_not_read_on_and_on_to_see_what_they_are(kind: str) -> None:
    options = {"rf64": "always"} if kind == "rf64" else None
    data = by_libav(tone(120), "wav" if kind == "rf64" else kind, "pcm_s16le", options=options)

    class Counted(io.BytesIO):
        num_read = 0

        def read(self, size: int | None = -1, /) -> bytes:
            found = super().read(size)
            self.num_read += len(found)
            return found

    file = Counted(data)
    with open_libav(file):
        assert file.num_read < 600_000
    assert len(of(data, 200)) == 120 * 16_000


@pytest.mark.parametrize("kind", ["WAV", "W64"])
def test_what_is_encoded_and_passes_for_samples_is_heard_for_what_it_is(kind: str) -> None:
    """As DTS and AC-3 on compact discs: the header speaks of 16-bit samples."""
    frames = by_libav(tone(2, 48_000), "ac3", "ac3", 48_000)
    samples = np.frombuffer(frames[: len(frames) // 2 * 2], np.int16)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 48_000, format=kind, subtype="PCM_16")
    assert_is_tone(of(buffer.getvalue()))


def test_sound_track_of_a_video() -> None:
    assert_is_tone(of(by_libav(tone(2, 44_100), "mp4", "aac", 44_100, with_video=True)))


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
def test_any_sample_rate(rate: int) -> None:
    assert_is_tone(of(by_soundfile(tone(2, rate), "WAV", "FLOAT", rate)))


@pytest.mark.parametrize("channels", [2, 6, 64])
def test_any_number_of_channels(channels: int) -> None:
    assert_is_tone(of(by_soundfile(tone(2), "WAV", "PCM_16", channels=channels)))


def test_channels_are_averaged() -> None:
    pcm = np.stack([np.full(1_000, 0.5), np.full(1_000, -0.1)], axis=1)
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, 16_000, format="WAV", subtype="FLOAT")
    np.testing.assert_allclose(of(buffer.getvalue()), 0.2, atol=1e-6)


def test_sixteen_kilohertz_comes_through_untouched() -> None:
    sound = noise(1)
    np.testing.assert_array_equal(of(by_soundfile(sound, "WAV", "FLOAT")), sound)


@pytest.mark.parametrize("name", ["speech.raw", "speech.txt", "speech.m3u8", "speech.mp4"])
@pytest.mark.parametrize("kind", ["WAV", "MP3", "adts"])
def test_a_wrong_name_changes_nothing(tmp_path: Path, name: str, kind: str) -> None:
    data = by_libav(tone(2), kind, "aac") if kind == "adts" else by_soundfile(tone(2), kind)
    (tmp_path / name).write_bytes(data)
    with (tmp_path / name).open("rb") as file:
        assert_is_tone(decode(file, 60).samples)


@pytest.mark.parametrize("max_size", [1 << 20, 100])
def test_spooled_upload(max_size: int) -> None:
    with tempfile.SpooledTemporaryFile(max_size) as file:
        file.write(by_soundfile(tone(2), "FLAC"))
        assert_is_tone(decode(file, 60).samples)


def test_blocks_join_without_a_seam() -> None:
    """A thin mp3 leans on the frames before; against the library's one whole read."""
    buffer = io.BytesIO()
    sound = np.tile(speech(), 24)
    soundfile.write(
        buffer, sound, 16_000, format="MP3", bitrate_mode="VARIABLE", compression_level=0.99
    )
    whole, _ = soundfile.read(io.BytesIO(buffer.getvalue()), dtype="float32")
    assert len(whole) > 30 * 16_000
    np.testing.assert_allclose(of(buffer.getvalue()), whole, atol=1e-5)


def test_too_loud_is_turned_down_not_clipped() -> None:
    sound = 3 * tone(1)
    np.testing.assert_allclose(of(by_soundfile(sound, "WAV", "FLOAT")), sound / 1.5, atol=1e-6)


def test_a_change_of_sample_rate_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocks(file: Seekable, losses: list[Notice]) -> Iterator[tuple[Samples, int]]:
        for rate in (8_000, 16_000, 44_100):
            yield tone(1, rate)[:, None], rate

    monkeypatch.setattr("service.audio.decode._blocks", blocks)
    assert abs(len(of(b"anything")) - 3 * 16_000) <= 2


def test_the_source_is_left_open() -> None:
    source: BinaryIO = io.BytesIO(by_soundfile(tone(1), "WAV"))
    decode(source, 60)
    assert not source.closed


def test_read_again_from_the_start() -> None:
    with SPEECH_FILE.open("rb") as file:
        first = decode(file, 60).samples
        np.testing.assert_array_equal(decode(file, 60).samples, first)
