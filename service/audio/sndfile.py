"""wav, flac, ogg, opus and mp3 by libsndfile."""

from __future__ import annotations

from collections.abc import Iterator

import soundfile

from service.audio.container import Seekable, has_mp3_frame_count
from service.errors import InvalidAudio
from service.types import Samples

_BLOCK_SECONDS = 4
_BLOCK_VALUES = 1 << 20  # samples times channels
_UNKNOWN_FRAMES = 1 << 62
_SLACK_SECONDS = 0.1  # an mp3's last frames may be padding


class _ForwardSoundFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """Reads on without seeking.

    `SoundFile.read` seeks to where it already is after each read. In an mp3 that throws away the
    decoder's bit reservoir, and the next block begins with a click (an error of 0.17 of full
    scale was seen).
    """

    def seekable(self) -> bool:
        return False


def open_sndfile(file: Seekable) -> soundfile.SoundFile | None:
    """The open file, or None if libsndfile does not know it or would not read all of it.

    libsndfile stops an mp3 without a frame count where its guess of the length ends.
    """
    file.seek(0)
    try:
        sound = _ForwardSoundFile(file)
    except soundfile.LibsndfileError:
        return None
    if sound.format == "MP3" and not _counts_frames(file):
        sound.close()
        return None
    return sound


def _counts_frames(file: Seekable) -> bool:
    position = file.tell()
    known = has_mp3_frame_count(file)
    file.seek(position)
    return known


def sndfile_blocks(sound: soundfile.SoundFile) -> Iterator[tuple[Samples, int]]:
    """Blocks (n, channels) of at most 4 s, each with its sample rate. Closes the file.

    Raises InvalidAudio for a corrupt file, or one that holds less than its header says.
    """
    rate, declared, read = sound.samplerate, sound.frames, 0
    size = max(1, min(_BLOCK_SECONDS * rate, _BLOCK_VALUES // sound.channels))
    with sound:
        while len(block := _read(sound, size)):
            read += len(block)
            yield block, rate
    if declared < _UNKNOWN_FRAMES and declared - read > _SLACK_SECONDS * rate:
        raise InvalidAudio(
            f"The audio file is truncated: it holds {read / rate:.1f} s of the "
            f"{declared / rate:.1f} s that its header promises. Upload the whole file."
        )


def _read(sound: soundfile.SoundFile, size: int) -> Samples:
    try:
        block: Samples = sound.read(size, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise InvalidAudio(
            "The audio file is corrupt or truncated: it cannot be decoded to its end."
        ) from error
    return block
