"""Times are those that a player shows: gaps, late starts and edit lists are in them."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from service.audio.clock import Clock
from service.audio.decode import decode
from service.errors import TooLarge
from service.types import Audio, Notice

from .files import by_libav, tone

CHUNK_S = 0.5


def read(data: bytes, max_seconds: float = 60) -> Audio:
    return decode(io.BytesIO(data), max_seconds)


def heard(audio: Audio) -> list[tuple[float, float]]:
    """From when to when there is sound, to hundredths of a second."""
    samples = audio.samples[: len(audio.samples) // 160 * 160]
    loud = np.abs(samples).reshape(-1, 160).max(axis=1) > 0.2
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]]))) / 100
    return [(float(start), float(end)) for start, end in edges.reshape(-1, 2)]


def timed(
    kind: str, codec: str, starts: tuple[float, ...], rate: int = 16_000, pictures_s: float = 0
) -> bytes:
    """Half a second of sound at each of `starts`, and pictures from 0 on."""
    buffer, packets = io.BytesIO(), []
    with av.open(buffer, "w", format=kind) as container:
        if pictures_s:
            video = container.add_stream("mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            for number in range(round(25 * pictures_s)):
                picture = av.VideoFrame(32, 32, "yuv420p")
                picture.pts, picture.time_base = number, Fraction(1, 25)
                packets += video.encode(picture)
            packets += video.encode(None)
        audio = container.add_stream(codec, rate=rate, layout="mono")
        for start in starts:
            frame = av.AudioFrame.from_ndarray(tone(CHUNK_S, rate)[None], "flt", "mono")
            frame.sample_rate = rate
            resampler, pts = av.AudioResampler(audio.format.name, "mono", rate), round(start * rate)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                part.pts, part.time_base = pts, Fraction(1, rate)
                pts += part.samples
                packets += audio.encode(part)
        packets += audio.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return buffer.getvalue()


TIMED = [
    ("matroska", "pcm_s16le", 16_000),
    ("matroska", "aac", 16_000),
    ("webm", "libopus", 48_000),
    ("mp4", "aac", 16_000),
    ("mpegts", "aac", 16_000),
    ("mpeg", "mp2", 48_000),
    ("flv", "aac", 44_100),
]


@pytest.mark.parametrize(("kind", "codec", "rate"), TIMED)
def test_a_gap_is_silence_and_no_loss(kind: str, codec: str, rate: int) -> None:
    audio = read(timed(kind, codec, (0, 5), rate))
    assert audio.losses == ()
    first, second = heard(audio)
    assert first == pytest.approx((0, 0.5), abs=0.08)
    assert second == pytest.approx((5, 5.5), abs=0.08)


@pytest.mark.parametrize(
    ("kind", "codec", "rate"), [k for k in TIMED if k[0] not in ("webm", "flv")]
)
@pytest.mark.parametrize("start", [2, 10])
def test_sound_that_begins_after_the_pictures(kind: str, codec: str, rate: int, start: int) -> None:
    """So late, too, that libav does not see at once that there is any."""
    audio = read(timed(kind, codec, (start,), rate, pictures_s=12))
    assert audio.losses == ()
    (only,) = heard(audio)
    assert only == pytest.approx((start, start + 0.5), abs=0.05)


@pytest.mark.parametrize(
    ("kind", "codec"), [("mp4", "aac"), ("mov", "pcm_s16le"), ("matroska", "aac")]
)
def test_a_recording_that_begins_with_silence(kind: str, codec: str) -> None:
    """In an mp4 by its edit list."""
    data = timed(kind, codec, (2.0,))
    assert kind == "matroska" or b"elst" in data
    (only,) = heard(read(data))
    assert only == pytest.approx((2, 2.5), abs=0.05)


@pytest.mark.parametrize("kind", ["mpegts", "mpeg"])
def test_a_broadcast_may_count_from_anywhere(kind: str) -> None:
    codec, rate = ("aac", 16_000) if kind == "mpegts" else ("mp2", 48_000)
    (only,) = heard(read(timed(kind, codec, (1000.0,), rate)))
    assert only == pytest.approx((0, 0.5), abs=0.08)


def test_a_clock_that_jumps_is_not_believed() -> None:
    """A broadcast's is set anew on the way; nobody waits for an hour of silence."""
    audio = read(timed("mpegts", "aac", (0, 3700)))
    assert audio.duration_s == pytest.approx(1.05, abs=0.1)


def test_the_silence_of_gaps_counts() -> None:
    with pytest.raises(TooLarge):
        read(timed("matroska", "aac", (0, 100)))


def test_priming_is_not_heard() -> None:
    """An mp4's edit list leaves out what the encoder put before the first sample."""
    (only,) = heard(read(by_libav(np.concatenate([tone(1), 0 * tone(1)]), "mp4", "aac")))
    assert only[0] <= 0.07


def test_the_stream_that_a_player_takes() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        streams = [container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(2)]
        streams[0].disposition = av.stream.Disposition.visual_impaired
        streams[1].disposition = av.stream.Disposition.default
        for stream, hertz in zip(streams, (440, 880), strict=True):
            frame = av.AudioFrame.from_ndarray(
                (tone(1, hertz=hertz) * 32_767).astype(np.int16)[None], "s16", "mono"
            )
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    spectrum = np.abs(np.fft.rfft(read(buffer.getvalue()).samples[:16_000]))
    assert spectrum.argmax() == 880


def test_damaged_pictures_do_not_matter() -> None:
    data = bytearray(by_libav(tone(2), "matroska", "pcm_s16le", with_video=True))
    whole = read(bytes(data)).samples
    at = data.index(b"\0\0\1\xb6")  # where one of its pictures begins
    data[at + 4 : at + 20] = bytes(16)
    audio = read(bytes(data))
    np.testing.assert_array_equal(audio.samples, whole)
    assert audio.losses == ()


# ---- the clock by itself ----


def begun(longest_s: float | None = None, promised_s: float | None = None) -> Clock:
    clock = Clock()
    clock.begin(0.0, longest_s, promised_s, seamless=False)
    return clock


def test_jitter_adds_no_silence() -> None:
    clock = begun()
    times = [0.0, 1.05, 2.0, 3.09, 4.0]
    assert [clock.place(time, 1.0) for time in times] == [0.0] * 5
    assert clock.now_s == 5


def test_small_gaps_add_up_to_one() -> None:
    clock = begun()
    assert [round(clock.place(1.04 * n, 1.0), 2) for n in range(4)] == [0, 0, 0, 0.12]


def test_a_jump_back_begins_anew() -> None:
    clock = begun()
    assert [clock.place(time, 1.0) for time in (0.0, 1.0, 0.0, 1.0, 4.0)] == [0, 0, 0, 0, 2]


def test_a_gap_longer_than_the_recording_is_not_believed() -> None:
    clock = begun(longest_s=10)
    assert [clock.place(time, 1.0) for time in (0.0, 12.0, 13.0)] == [0, 0, 0]


def test_losses_that_are_neighbours_are_one_and_many_are_summed_up() -> None:
    clock = begun()
    for number in range(100):
        clock.place(5.0 * number, 1.0)
        clock.damaged()
        clock.place(5.0 * number + 1.1, 0.2)
        clock.damaged()
        clock.place(5.0 * number + 1.3, 0.2)
    clock.end(None, cut=False)
    notices = clock.notices()
    assert len(notices) == 21
    assert notices[0] == Notice("damaged_audio", notices[0].message, start=1.0, end=1.3)
    assert "80 more places between 101.0 s and" in notices[-1].message
    assert [notice.start for notice in notices] == sorted(notice.start or 0 for notice in notices)


def test_damage_at_the_end_of_a_promise_that_was_kept_is_none() -> None:
    """Tags behind the last frame do not decode."""
    clock = begun(promised_s=1.0)
    clock.place(0.0, 1.0)
    clock.damaged(0.1)
    clock.end(None, cut=False)
    assert clock.notices() == []
