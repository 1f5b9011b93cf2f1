"""Files that are made to be hard on whoever reads them: small ones that declare or hide much."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from random import Random

import numpy as np

from loadtest.hostile.damage import EXTREMES
from loadtest.hostile.recordings import recording, wav

MB = 2**20


def made_hard(rng: Random) -> tuple[bytes, str]:
    """A file and its name."""
    name, make = rng.choice(MADE)
    return make(rng), name


def _chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data


def _riff_flood(rng: Random) -> bytes:
    """Empty chunks by the ten thousand before the sound."""
    size = int(MB * rng.choice((0.1, 0.5, 2, 8)))
    form = _chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16))
    flood = _chunk(rng.choice((b"junk", b"LIST", b"fact", b"\0\0\0\0")), b"") * (size // 8)
    body = b"WAVE" + form + flood + _chunk(b"data", bytes(3200))
    return _chunk(rng.choice((b"RIFF", b"RIFX", b"RF64")), body)


def _aiff_flood(rng: Random) -> bytes:
    flood = rng.choice((b"ANNO", b"APPL", b"SSND")) + bytes(4)
    body = b"AIFF" + flood * rng.choice((1000, 100_000))
    return b"FORM" + struct.pack(">I", len(body)) + body


def _wav_head(rng: Random) -> bytes:
    """Rates, channels and widths out of this world."""
    channels, bits = rng.choice((0, 1, 2, 255, 65535)), rng.choice((0, 1, 7, 8, 16, 24, 32, 64))
    rate = rng.choice((0, 1, 999, 16000, 192_000, 2**31 - 1, 2**32 - 1))
    block = rng.choice((0, 1, 2, channels * bits // 8)) % 65536
    code = rng.choice((0, 1, 2, 3, 6, 7, 17, 49, 80, 85, 255, 0xFFFE))
    form = struct.pack("<HHIIHH", code, channels, rate, rng.choice(EXTREMES), block, bits)
    data = bytes(rng.choice((0, 1, 3200, 32001)))
    sound = b"data" + struct.pack("<I", rng.choice((*EXTREMES, len(data)))) + data
    return (
        b"RIFF" + struct.pack("<I", rng.choice(EXTREMES)) + b"WAVE" + _chunk(b"fmt ", form) + sound
    )


def _wild_samples(rng: Random) -> bytes:
    samples = np.zeros(rng.choice((1, 100, 16000)), np.float32)
    wild = rng.choice((np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 1e20))
    count = rng.choice((1, len(samples)))
    samples[[rng.randrange(len(samples)) for _ in range(count)]] = wild
    return wav(samples, rng.choice((8000, 16000, 44100)))


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _full(kind: bytes, *parts: bytes) -> bytes:
    return _box(kind, bytes(4), *parts)


def _mp4_counts(rng: Random) -> bytes:
    """Tables of a few bytes that declare samples by the million."""
    count = rng.choice((1000, 1_000_000, 10_000_000, 2**31 - 1, 2**32 - 1))
    step, size = rng.choice((0, 1, 2, 2**31)), rng.choice((0, 1, 2, 2**31))
    unit = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    sound = struct.pack(">HHHHI", rng.choice((1, 2, 65535)), 16, 0, 0, 16000 << 16)
    kind = rng.choice((b"sowt", b"mp4a", b"alac", b"ulaw", b"twos"))
    entry = _box(kind, bytes(6), struct.pack(">H", 1), bytes(8), sound)
    tables = _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), entry),
        _full(b"stts", struct.pack(">III", 1, count, step)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, rng.choice((1, count)), 1)),
        _full(b"stsz", struct.pack(">II", size, count)),
        _full(b"stco", struct.pack(">II", 1, 0)),
    )
    media = _box(
        b"mdia",
        _full(b"mdhd", struct.pack(">IIII", 0, 0, 16000, 16000), b"\x55\xc4\0\0"),
        _full(b"hdlr", bytes(4), b"soun", bytes(13)),
        _box(b"minf", _full(b"smhd", bytes(4)), tables),
    )
    head = _full(
        b"mvhd", struct.pack(">IIII", 0, 0, 1000, 1000), struct.pack(">IH", 0x10000, 0x100),
        bytes(10), unit, bytes(24), struct.pack(">I", 2),
    )  # fmt: skip
    track = _box(
        b"trak",
        _box(b"tkhd", bytes(3) + b"\7", struct.pack(">5I", 0, 0, 1, 0, 1000), bytes(16), unit,
             bytes(8)),
        media,
    )  # fmt: skip
    brand = _box(b"ftyp", b"isom", bytes(4), b"isom")
    return brand + _box(b"moov", head, track * rng.choice((1, 8, 200))) + _box(b"mdat", bytes(1000))


def _mp4_nesting(rng: Random) -> bytes:
    inside = _box(b"free")
    for _ in range(rng.choice((100, 2000))):
        inside = _box(rng.choice((b"moov", b"trak", b"udta", b"meta")), inside)
    return _box(b"ftyp", b"isom", bytes(4)) + inside


def _ebml_nesting(rng: Random) -> bytes:
    """A Matroska head, then elements of unknown size, each inside the last."""
    head = b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska"
    unknown = b"\x01" + b"\xff" * 7
    element = rng.choice((b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\xae", b"\xa0", b"\x73\xc3"))
    return head + b"\x18\x53\x80\x67" + unknown + (element + unknown) * rng.choice((10, 20_000))


def _ebml_void(rng: Random) -> bytes:
    base = recording("webm/libopus/48000")
    at = base.index(b"\x1f\x43\xb6\x75")
    return base[:at] + b"\xec\x80" * rng.choice((100, 100_000)) + base[at:]


def _ogg_pages(rng: Random) -> bytes:
    """Pages with tables that do not fit them, of streams that nobody began."""
    pages = []
    for number in range(rng.choice((1, 50, 5000))):
        lacing = rng.randbytes(rng.choice((0, 1, 255)))
        kind, serial = rng.randrange(8), rng.choice((1, rng.getrandbits(32)))
        head = struct.pack("<BBqIIIB", 0, kind, rng.choice((-1, 0, 2**62)), serial, number, 0,
                           len(lacing))  # fmt: skip
        start = rng.choice((b"OpusHead", b"\x01vorbis", b"\x7fFLAC", b"Speex   "))
        pages.append(b"OggS" + head + lacing + start + rng.randbytes(rng.choice((0, 20, 200))))
    return b"".join(pages)


def _flac_lies(rng: Random) -> bytes:
    base = recording("flac/flac/16000")
    info = bytearray(base[8:42])
    for at in (0, 2, 10, 13, 14, 18):
        info[at] = rng.choice((0, 1, 0x0F, 0xFF, info[at]))
    blocks = b"\x01\0\0\0" * rng.choice((0, 100, 200_000))
    return base[:8] + bytes(info) + blocks + base[42:]


def _mp3_frames(rng: Random) -> bytes:
    """Heads of frames, each of another layer, rate and mode."""
    heads = (struct.pack(">I", 0xFFE00000 | rng.getrandbits(21)) for _ in range(2000))
    return b"".join(head + rng.randbytes(rng.choice((0, 50, 400))) for head in heads)


def _caf_chunks(rng: Random) -> bytes:
    form = struct.pack(">d4sIIIII", rng.choice((0.0, 16e3, 1e300, float("nan"))), b"lpcm", 0,
                       rng.choice(EXTREMES), rng.choice(EXTREMES), rng.choice(EXTREMES),
                       rng.choice(EXTREMES))  # fmt: skip
    size = rng.choice((-1, 0, 2**62, 2**63 - 1))
    chunk = b"desc" + struct.pack(">q", len(form)) + form + b"data" + struct.pack(">q", size)
    return b"caff\0\1\0\0" + chunk + bytes(2000)


def _reference(rng: Random) -> bytes:
    """Texts that FFmpeg's demuxers would follow to files and hosts."""
    target = rng.choice(("/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:9/a.ts",
                         "/dev/zero",
                         "concat:/etc/passwd|/etc/hosts",
                         "subfile,,start,0,end,9,,:/etc/passwd"))  # fmt: skip
    form = rng.choice(("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n",
                       "ffconcat version 1.0\nfile '{}'\n",
                       "v=0\r\nc=IN IP4 127.0.0.1\r\na=x:{}\r\n"
                       "m=audio 9 RTP/AVP 0\r\n", "<MPD><BaseURL>{}</BaseURL></MPD>",
                       "<svg><image href='{}'/></svg>", "[Script Info]\n{}\n", "rtsp://{}\n",
                       "1\n00:00:00,000 --> 00:00:01,000\n{}\n", "WEBVTT\n\n{}\n"))  # fmt: skip
    return form.format(target).encode() * rng.choice((1, 100))


def _packed(rng: Random) -> bytes:
    """Megabytes of nothing in kilobytes."""
    nothing = bytes(rng.choice((1, 8)) * MB)
    if rng.random() < 0.5:
        return gzip.compress(nothing, mtime=0)
    return rng.choice((b"", b"PK\3\4")) + zlib.compress(nothing)


def _noise(rng: Random) -> bytes:
    starts = (b"", b"RIFF", b"fLaC", b"OggS", b"ID3\3", b"\xff\xfb", b"#!AMR\n",
              b"\x1a\x45\xdf\xa3",
              b"FORM", b"caff", b".snd", b"\0\0\0\x20ftyp", b"MThd", b"\x47", b"\0\0\1\xba",
              b"FLV\1",
              b"0&\xb2u\x8ef\xcf\x11", b"wvpk", b"TTA1", b"MAC ", b"MPCK", b"DSD ", b"\x89PNG",
              b"GIF89a", b"%PDF", b"\x7fELF", b"riff.\x91\xcf\x11")  # fmt: skip
    size = rng.choice((0, 1, 100, 4000, 200_000))
    tail = rng.randbytes(size) if rng.random() < 0.5 else bytes(size)
    return rng.choice(starts) + tail or b"\0"


MADE: tuple[tuple[str, Callable[[Random], bytes]], ...] = (
    ("a flood of RIFF chunks", _riff_flood),
    ("a flood of AIFF chunks", _aiff_flood),
    ("a wav head out of this world", _wav_head),
    ("wild samples", _wild_samples),
    ("an mp4 that declares too much", _mp4_counts),
    ("nested mp4 boxes", _mp4_nesting),
    ("nested EBML elements", _ebml_nesting),
    ("a flood of EBML voids", _ebml_void),
    ("odd Ogg pages", _ogg_pages),
    ("a flac head that lies", _flac_lies),
    ("frames of any mp3", _mp3_frames),
    ("a caf that lies", _caf_chunks),
    ("a reference to elsewhere", _reference),
    ("packed nothing", _packed),
    ("noise after a known start", _noise),
)
