"""Every format by its content alone, and every kind of file that is not one."""

from __future__ import annotations

import io
import struct
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
import soundfile

from service.audio.container import Nameless, Seekable
from service.audio.decode import decode, decode_channels
from service.audio.libav import libav_blocks
from service.audio.sndfile import sndfile_blocks
from service.errors import InvalidAudio, InvalidRequest, TooLarge
from service.types import Samples

from .files import SPEECH_FILE, by_libav, by_soundfile, noise, silence, speech, tone

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


def of(data: bytes, max_seconds: float = 60.0) -> Samples:
    audio = decode(io.BytesIO(data), max_seconds)
    assert audio.samples.dtype == np.float32
    assert audio.samples.ndim == 1
    return audio.samples


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
    np.testing.assert_allclose(of(buffer.getvalue()), whole, atol=1e-6)


def test_too_loud_is_turned_down_not_clipped() -> None:
    sound = 3 * tone(1)
    np.testing.assert_allclose(of(by_soundfile(sound, "WAV", "FLOAT")), sound / 1.5, atol=1e-6)


# ---- not audio ----


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_values_that_are_not_numbers(value: float, rate: int, subtype: str) -> None:
    sound = tone(1)
    sound[7_000] = value
    assert "not numbers" in refused(by_soundfile(sound, "WAV", subtype, rate))


def test_video_without_sound() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(video.encode(None))
    assert "no audio track" in refused(buffer.getvalue())


TRUNCATED = {
    "wav": lambda: by_soundfile(noise(5), "WAV"),
    "wav float": lambda: by_soundfile(noise(5), "WAV", "FLOAT"),
    "rf64": lambda: by_soundfile(noise(5), "RF64"),
    "aiff": lambda: by_soundfile(noise(5), "AIFF"),
    "flac": lambda: by_soundfile(noise(5), "FLAC"),
    "vorbis": lambda: by_soundfile(noise(5), "OGG", "VORBIS"),
    "opus": lambda: by_soundfile(noise(5), "OGG", "OPUS"),
    "mp3": lambda: by_soundfile(noise(5), "MP3"),
    "m4a": lambda: by_libav(noise(5), "mp4", "aac"),
    "fragmented": lambda: by_libav(
        noise(5), "mp4", "aac", options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "webm": lambda: by_libav(noise(5), "webm", "libopus", 48_000),
    "matroska": lambda: by_libav(noise(5), "matroska", "aac"),
}


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("kind", TRUNCATED)
def test_truncated(kind: str, share: float) -> None:
    whole = TRUNCATED[kind]()
    assert len(of(whole)) > 0
    refused(whole[: int(len(whole) * share)])


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_mp4_whose_index_comes_first(tmp_path: Path, share: float) -> None:
    """As the web serves it. libav notices only if the cut is not between two frames."""
    path = tmp_path / "faststart"
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(5)[None], "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert len(of(data)) >= 5 * 16_000
    assert "header promises" in refused(data[: int(len(data) * share)])


def test_truncated_mp3_that_counts_its_frames_but_not_its_bytes() -> None:
    data = bytearray(by_soundfile(noise(5), "MP3"))
    flags = data.find(b"Xing") + 7
    assert data[flags] & 3 == 3
    data[flags] = 1
    assert "truncated" in refused(bytes(data[: len(data) // 2]))


@pytest.mark.parametrize("kind", ["m4a", "flac"])
def test_corrupt_in_the_middle(kind: str) -> None:
    data = bytearray(TRUNCATED[kind]())
    third = len(data) // 3
    data[third : 2 * third] = bytes(third)
    refused(bytes(data))


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


# ---- limits ----


Blocks = Iterator[tuple[Samples, int]]


class Counted:
    """Passes a generator of blocks on, and adds up the seconds that were taken from it."""

    def __init__(self, blocks: Callable[..., Blocks]) -> None:
        self._blocks = blocks
        self.seconds = 0.0

    def __call__(self, source: object) -> Blocks:
        for block, rate in self._blocks(source):
            self.seconds += len(block) / rate
            yield block, rate


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Seconds that either library has unpacked."""
    counted = [Counted(sndfile_blocks), Counted(libav_blocks)]
    monkeypatch.setattr("service.audio.decode.sndfile_blocks", counted[0])
    monkeypatch.setattr("service.audio.decode.libav_blocks", counted[1])
    return lambda: sum(c.seconds for c in counted)


def stereo(kind: str) -> bytes:
    """440 Hz on the left, 880 Hz at half the loudness on the right, 2 s."""
    both = np.stack([tone(2), 0.5 * tone(2, hertz=880.0)], axis=1)
    buffer = io.BytesIO()
    if kind == "WAV":
        soundfile.write(buffer, np.repeat(both, 3, axis=0), 48_000, format=kind)
        return buffer.getvalue()
    with av.open(buffer, "w", format=kind) as container:
        stream = container.add_stream("alac", rate=16_000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(both.T), "fltp", "stereo")
        frame.sample_rate = 16_000
        resampler = av.AudioResampler(stream.format.name, "stereo", 16_000, stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "mov"])
def test_channels_are_kept_apart(kind: str) -> None:
    left, right = decode_channels(io.BytesIO(stereo(kind)), 60)
    assert len(left.samples) == len(right.samples)
    for audio, hertz, loudness in ((left, 440, 0.5), (right, 880, 0.25)):
        assert audio.samples.flags["C_CONTIGUOUS"]
        middle = audio.samples[8_000:24_000]
        assert np.sqrt(np.square(middle).mean()) == pytest.approx(loudness / np.sqrt(2), rel=0.02)
        if kind == "mov":
            assert np.abs(np.fft.rfft(middle)).argmax() == hertz
    mixed = of(stereo(kind))
    np.testing.assert_allclose(mixed, (left.samples + right.samples) / 2, atol=1e-4)


def test_channels_of_a_mono_file_are_one() -> None:
    data = by_soundfile(tone(2), "WAV")
    (only,) = decode_channels(io.BytesIO(data), 60)
    np.testing.assert_array_equal(only.samples, of(data))


def test_the_seconds_of_all_channels_count(unpacked: Callable[[], float]) -> None:
    data = by_soundfile(tone(20), "WAV", channels=8)
    assert len(of(data, max_seconds=20)) == 20 * 16_000
    before = unpacked()
    with pytest.raises(TooLarge, match="8 channels together"):
        decode_channels(io.BytesIO(data), 20)
    assert unpacked() - before < 10


def test_too_many_channels_are_refused_at_the_first_block(unpacked: Callable[[], float]) -> None:
    with pytest.raises(InvalidRequest, match="at most 8 channels") as refusal:
        decode_channels(io.BytesIO(by_soundfile(tone(20), "WAV", channels=9)), 60)
    assert refusal.value.param == "channels"
    assert unpacked() < 10


def test_channels_that_come_and_go_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocks(file: Seekable) -> Iterator[tuple[Samples, int]]:
        for channels in (2, 1):
            yield np.repeat(tone(1)[:, None], channels, axis=1), 16_000

    monkeypatch.setattr("service.audio.decode.open_sndfile", lambda file: None)
    monkeypatch.setattr("service.audio.decode.libav_blocks", blocks)
    with pytest.raises(InvalidAudio, match="2 channels and later 1"):
        decode_channels(io.BytesIO(b"anything"), 60)


def test_limit_is_exact() -> None:
    data = by_soundfile(tone(2), "WAV")
    assert len(of(data, max_seconds=2.0)) == 32_000
    with pytest.raises(TooLarge, match=r"limit of 1\.99 seconds"):
        of(data, max_seconds=1.99)


FIVE_MINUTES = np.zeros(8_000 * 300, np.float32)
BOMBS = {
    "flac": lambda: by_soundfile(FIVE_MINUTES, "FLAC", rate=8_000),
    "vorbis": lambda: by_soundfile(FIVE_MINUTES, "OGG", rate=8_000),
    "mp3": lambda: by_soundfile(FIVE_MINUTES, "MP3", rate=8_000),
    "live flac": lambda: by_libav(FIVE_MINUTES, "flac", "flac", 8_000, seekable=False),
    "m4a": lambda: by_libav(FIVE_MINUTES, "mp4", "aac", 8_000),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_unpacks_to_more_stops_early(kind: str, unpacked: Callable[[], float]) -> None:
    """Silence packs well: reading stops at the limit, and so does memory."""
    data = BOMBS[kind]()
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            of(data, max_seconds=20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 20 <= unpacked() < 30
    assert peak < 8e6  # 20 s at 16 kHz is 1.3 MB; five minutes would be 19 MB


def test_a_change_of_sample_rate_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocks(file: Seekable) -> Iterator[tuple[Samples, int]]:
        for rate in (8_000, 16_000, 44_100):
            yield tone(1, rate)[:, None], rate

    monkeypatch.setattr("service.audio.decode.open_sndfile", lambda file: None)
    monkeypatch.setattr("service.audio.decode.libav_blocks", blocks)
    assert abs(len(of(b"anything")) - 3 * 16_000) <= 2


def test_the_source_is_left_open() -> None:
    source: BinaryIO = io.BytesIO(by_soundfile(tone(1), "WAV"))
    decode(source, 60)
    assert not source.closed


def test_read_again_from_the_start() -> None:
    with SPEECH_FILE.open("rb") as file:
        first = decode(file, 60).samples
        np.testing.assert_array_equal(decode(file, 60).samples, first)
