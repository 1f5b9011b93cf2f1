"""A small file can unpack to days: reading stops at the limit."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from service.audio.decode import decode_channels
from service.audio.recording import recording_blocks
from service.errors import InvalidRequest, TooLarge
from service.types import Samples

from .files import by_libav, by_soundfile, of, tone

Blocks = Iterator[tuple[Samples, int]]


class Counted:
    """Passes a generator of blocks on, and adds up the seconds that were taken from it."""

    def __init__(self, blocks: Callable[..., Blocks]) -> None:
        self._blocks = blocks
        self.seconds = 0.0

    def __call__(self, *source: object) -> Blocks:
        for block, rate in self._blocks(*source):
            self.seconds += len(block) / rate
            yield block, rate


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """Seconds that were unpacked."""
    counted = Counted(recording_blocks)
    monkeypatch.setattr("service.audio.decode._blocks", counted)
    return lambda: counted.seconds


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
