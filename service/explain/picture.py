"""A log-mel as a PNG that takes its paper from the page, without an imaging library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

from service.explain.explanation import Picture

Values = npt.NDArray[np.float64]

LEVELS = 48  # shades: more are not told apart, and weigh
# From nothing over amber to near-black: the louder, the darker and the less transparent.
INKS = ((0.0, (214, 168, 84)), (0.45, (176, 112, 24)), (0.75, (104, 58, 12)), (1.0, (26, 14, 4)))
GAMMA = 1.4  # the quieter half of a log-mel is room noise


def png_of(mel_FT: Picture) -> bytes:
    """A palette PNG of (bands, columns) from 0 to 1, lowest band at the bottom."""
    levels = np.rint(np.clip(mel_FT[::-1], 0, 1) * (LEVELS - 1)).astype(np.uint8)
    height, width = levels.shape
    inks, opacity = palette()
    # Each line begins with its filter: 0, as it is.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), levels], axis=1).tobytes()
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", inks.astype(np.uint8).tobytes()),
            _chunk(b"tRNS", (255 * opacity).round().astype(np.uint8).tobytes()),
            _chunk(b"IDAT", zlib.compress(lines, 9)),
            _chunk(b"IEND", b""),
        )
    )


def palette() -> tuple[Values, Values]:
    """The ink of each level, (LEVELS, 3) from 0 to 255, and how opaque it is, from 0 to 1."""
    shades = np.arange(LEVELS) / (LEVELS - 1)
    stops, inks = [stop for stop, _ in INKS], np.array([ink for _, ink in INKS], float)
    mixed = np.stack([np.interp(shades, stops, inks[:, i]) for i in range(3)], axis=1)
    return mixed.round(), shades**GAMMA


def data_uri(content: bytes, media_type: str) -> str:
    """The content in a page's own text."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _chunk(name: bytes, data: bytes) -> bytes:
    check = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)
