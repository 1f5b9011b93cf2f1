"""Whatever libav can read, safely, and on past what it cannot.

A media file is a program for its parser: playlists, concatenations and session descriptions tell
libav to open other files and addresses. Only plain containers and audio codecs are let in, and
any attempt to open something else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import av
import av.logging
import numpy as np
from av import AudioFrame, AudioStream, Packet
from av.container import InputContainer
from av.stream import Discard

from service.audio.chunks import is_riff
from service.audio.clock import Clock
from service.audio.container import Seekable, read_at
from service.audio.parts import MATROSKA, MP4, Part
from service.errors import InvalidAudio
from service.types import Samples

_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,avr,caf,dss,dts,dtshd,dv,eac3,flac,flv,gsm,ilbc,"
    "ircam,loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,ogg,"
    "paf,pvf,qcp,rm,shn,sox,tak,tta,voc,w64,wav,wv"
)
_CODECS = (
    "aac,aac_latm,ac3,adpcm_ct,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_sbpro_2,adpcm_sbpro_3,"
    "adpcm_sbpro_4,adpcm_swf,adpcm_yamaha,alac,amrnb,amrwb,ape,cook,dca,dss_sp,dvaudio,eac3,flac,"
    "g722,g723_1,g726,g726le,gsm,gsm_ms,ilbc,mace3,mace6,mp1,mp1float,mp2,mp2float,mp3,mp3float,"
    "mpc7,mpc8,nellymoser,opus,pcm_alaw,pcm_bluray,pcm_dvd,pcm_f32be,pcm_f32le,pcm_f64be,"
    "pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16be_planar,pcm_s16le,pcm_s16le_planar,pcm_s24be,"
    "pcm_s24le,pcm_s32be,pcm_s32le,pcm_s64be,pcm_s64le,pcm_s8,pcm_s8_planar,pcm_u16be,pcm_u16le,"
    "pcm_u24be,pcm_u24le,pcm_u32be,pcm_u32le,pcm_u8,qcelp,qdm2,real_144,real_288,s302m,shorten,"
    "sipr,speex,tak,truespeech,tta,vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2,wmavoice"
)
_BLOCK_SECONDS = 1
_SILENCE_SECONDS = 4
_PCM_BYTES = "65536"  # that wav's reader gives at once, in the place of some 20 ms
# As much of it as ffmpeg asks whether it is something else, as ac3, each time of all that was read
# so far: of 32 such blocks, which are the default, two minutes of wav took 90 ms to open.
_PROBE_LITTLE = {"max_probe_packets": "2"}
_MAX_FAILURES = 20  # of reading on, one after the other
_ERRORS = (av.FFmpegError, OSError, ValueError)
# Containers whose times may begin anew on the way, as ffmpeg knows them: a longer gap is none.
_DISCONTINUOUS = ("mpeg", "mpegts")
_LONGEST_GAP_S = 10.0
_SEARCH_LONGER = {"probesize": str(100 << 20), "analyzeduration": str(600_000_000)}
_SEAMLESS = ("flac",)
# RFC 9559: how a block begins, and the bytes of track, time and flags that libav does not count.
_BLOCKS, _BLOCK_HEAD = (b"\xa3", b"\xa0"), 4
_LEFT_OUT_BYTES, _LEFT_OUT_S = 200, 0.05  # between two blocks: more than what frames them
_CHECKED = {"flac": {"err_detect": "crccheck+explode"}}  # else damage is decoded, as noise

av.logging.set_level(None)  # nothing of a user's file goes to stderr


def open_libav(file: Seekable) -> InputContainer:
    """`file` as libav sees it.

    Raises InvalidAudio if libav does not know what it is.
    """
    container = _opened(file, _PROBE_LITTLE if is_riff(read_at(file, 0, 16)) else {})
    if container.format.name in _DISCONTINUOUS and container.streams.best("audio") is None:
        container.close()  # of these libav reads 5 s to see what is in them
        container = _opened(file, _SEARCH_LONGER)
    return container


def _opened(file: Seekable, options: dict[str, str]) -> InputContainer:
    file.seek(0)
    limits = {"format_whitelist": _FORMATS, "codec_whitelist": _CODECS, "max_size": _PCM_BYTES}
    try:
        container: InputContainer = av.open(
            file,
            mode="r",
            metadata_errors="replace",
            container_options=limits | options,
            io_open=_refuse,
        )
    except _ERRORS as error:
        raise InvalidAudio(
            "This is not an audio file that can be read. Use wav, flac, ogg, opus, mp3, m4a, mp4 "
            "or webm."
        ) from error
    return container


def libav_blocks(
    container: InputContainer, file: Seekable, part: Part, clock: Clock
) -> Iterator[tuple[Samples, int]]:
    """Blocks (n, channels) of about 1 s, each with its sample rate, of one audio stream.

    It is the one that a player takes. Silence stands for what `clock` finds missing. `file` is
    what `container` reads. Raises InvalidAudio if there is no audio, or none of a kind that is
    read.
    """
    stream = container.streams.best("audio")
    if stream is None:
        raise InvalidAudio("The file has no audio track.")
    name = stream.codec_context.name
    if name not in _CODECS.split(","):
        raise InvalidAudio(f"The sound is encoded as {name}, which is not read here.")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    stream.codec_context.options = _CHECKED.get(name, {})
    if not part.goes_on:
        _begin(container, stream, part, clock)
    elif not clock.has_begun:  # what is lost is the beginning, and begins at 0
        clock.begin(0.0, _LONGEST_GAP_S, None, seamless=False)
    reading = _Reading(container, stream, clock)
    yield from reading.blocks()
    is_cut = reading.is_cut or reading.has_more(file)
    clock.end(part.promised, part.cut or (is_cut and part.promised is None))


def _begin(container: InputContainer, stream: AudioStream, part: Part, clock: Clock) -> None:
    name = container.format.name
    origin_s = _origin_s(container, stream)
    longest_s = _LONGEST_GAP_S if name in _DISCONTINUOUS else None
    promised_s = _promised_s(container, stream, origin_s) if part.counted else None
    if promised_s is not None and longest_s is None:
        longest_s = max(promised_s, (container.duration or 0) / av.time_base)
    clock.begin(origin_s, longest_s, promised_s, seamless=name in _SEAMLESS)


def _origin_s(container: InputContainer, stream: AudioStream) -> float:
    """Where the recording begins on the container's clock.

    That is where the first of its streams begins, sound or pictures: most containers count from
    anywhere. But in an mp4 that is no live stream's an edit list may begin with silence, and a
    matroska that lasts longer than it has sound begins at 0 too.
    """
    start, end = container.start_time or 0, container.duration or 0
    if start > 0 and container.format.name == MP4 and stream.frames:
        return 0.0
    if 0 < start < end and container.format.name == MATROSKA:
        return 0.0
    return float(start / av.time_base)


def _promised_s(container: InputContainer, stream: AudioStream, origin_s: float) -> float | None:
    """When the stream ends by its header, from the start; None if that does not say."""
    if container.format.name != MATROSKA:
        if stream.duration is None:
            return None
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - origin_s
    # Of a stream that begins late libav says that it lasts as long as the file.
    if told := re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = told.groups()
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds) - origin_s
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration / av.time_base)
    return None


class _Reading:
    """One stream's samples, read on past everything that cannot be."""

    def __init__(self, container: InputContainer, stream: AudioStream, clock: Clock) -> None:
        self._container = container
        self._stream = stream
        self._clock = clock
        self.is_cut = False  # whether the last packet was not all there
        # Of a matroska with nothing else in it: the byte of the block read last, and where it ends.
        self._alone = container.format.name == MATROSKA and len(container.streams) == 1
        self._at = self._next_at = 0
        self._next_s: float | None = None  # when it ends

    def blocks(self) -> Iterator[tuple[Samples, int]]:
        """Frames of some 20 ms joined to blocks, with silence in the gaps.

        Libav joins them: in numpy it takes as long as decoding them.
        """
        clock, fifo = self._clock, av.AudioFifo()
        unit_s = float(self._stream.time_base or 0)
        for frame in self._frames():
            pts, rate, num_samples = frame.pts, frame.sample_rate, frame.samples
            silence_s = clock.place(None if pts is None else pts * unit_s, num_samples / rate)
            if silence_s or fifo.samples >= _BLOCK_SECONDS * rate:
                yield from _taken(fifo)
                yield from silence(silence_s, frame.layout.nb_channels, rate)
            frame.pts = None
            try:
                fifo.write(frame)
            except ValueError:  # not like those before
                yield from _taken(fifo)
                fifo = av.AudioFifo()
                fifo.write(frame)
        yield from _taken(fifo)

    def _frames(self) -> Iterator[AudioFrame]:
        """Every frame that can be decoded."""
        decode = self._stream.codec_context.decode
        unit_s = float(self._stream.time_base or 0)
        for packet in self._packets():
            try:
                yield from decode(packet)
            except _ERRORS:
                lasts = 0 if packet is None else packet.duration or 0
                self._clock.damaged(lasts * unit_s)

    def _packets(self) -> Iterator[Packet | None]:
        """Every packet that can be found, and None at the end, for what the decoder holds."""
        failures = 0
        checked = self._container.format.name in _DISCONTINUOUS
        while failures < _MAX_FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    if not packet.size:  # would end the decoder
                        continue
                    failures = 0
                    if (checked and packet.is_corrupt) or self._leaves_out(packet):
                        self._clock.damaged()
                    self.is_cut = packet.is_corrupt
                    yield packet
                break
            except _ERRORS:
                failures += 1
                self._clock.damaged()
        yield None

    def _leaves_out(self, packet: Packet) -> bool:
        """Whether there are blocks before this one that libav could not read, of which it says
        nothing: a pause has no bytes. Beside pictures it may have theirs."""
        at, pts = packet.pos, packet.pts
        if not self._alone or at is None or pts is None:
            return False
        unit_s = float(packet.time_base)
        is_gap = self._next_s is not None and pts * unit_s - self._next_s > _LEFT_OUT_S
        leaves_out = is_gap and at - self._next_at > _LEFT_OUT_BYTES
        begins = self._next_at if at == self._at else at  # several packets may share a block
        self._at, self._next_at = at, begins + packet.size
        self._next_s = (pts + (packet.duration or 0)) * unit_s
        return leaves_out

    def has_more(self, file: Seekable) -> bool:
        """Whether one more block of a matroska begins where libav found the last to end."""
        return self._alone and read_at(file, self._next_at + _BLOCK_HEAD, 1) in _BLOCKS


def _taken(fifo: av.AudioFifo) -> Iterator[tuple[Samples, int]]:
    frame = fifo.read()
    if frame is not None:
        yield samples_of(frame), frame.sample_rate


def silence(seconds: float, num_channels: int, rate: int) -> Iterator[tuple[Samples, int]]:
    """Blocks of zeros, none of them long."""
    num_samples = round(seconds * rate)
    while num_samples > 0:
        length = min(num_samples, _SILENCE_SECONDS * rate)
        yield np.zeros((length, num_channels), np.float32), rate
        num_samples -= length


def samples_of(frame: AudioFrame) -> Samples:
    """A frame's samples (n, channels), float32. Integer samples are scaled to [-1, 1]."""
    values = frame.to_ndarray()  # (channels, n), or (1, n * channels) where they are interleaved
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    with np.errstate(over="ignore"):  # of 64 bits: `wild` deals with it
        samples_NC: Samples = values.T.astype(np.float32, copy=False)
    if values.dtype.kind in "iu":
        full_scale = float(1 << 8 * values.dtype.itemsize - 1)
        samples_NC /= np.float32(full_scale)
        if values.dtype.kind == "u":
            samples_NC -= 1
    return samples_NC


def _refuse(url: str, flags: int, options: dict[str, str]) -> object:
    raise PermissionError("an audio file may not open another file")
