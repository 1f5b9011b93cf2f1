"""The channels of a recording, kept apart."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import numpy as np
import pytest
import soundfile

from service.audio.container import Seekable
from service.audio.decode import decode_channels
from service.errors import InvalidAudio
from service.types import Notice, Samples

from .files import by_soundfile, of, tone


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


def test_channels_that_come_and_go_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocks(file: Seekable, losses: list[Notice]) -> Iterator[tuple[Samples, int]]:
        for channels in (2, 1):
            yield np.repeat(tone(1)[:, None], channels, axis=1), 16_000

    monkeypatch.setattr("service.audio.decode._blocks", blocks)
    with pytest.raises(InvalidAudio, match="2 channels and later 1"):
        decode_channels(io.BytesIO(b"anything"), 60)
