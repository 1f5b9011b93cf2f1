"""A set of recordings as it is kept: one flat file of samples and an index."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from service.errors import ConfigError
from service.types import Samples


@dataclass(frozen=True, slots=True)
class SpeechSet:
    """Strings of speech in one flat array of 16 kHz mono samples."""

    samples: np.memmap[tuple[int, ...], np.dtype[np.int16]]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    texts: tuple[str, ...]
    voices: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def get(self, i: int) -> Samples:
        """String `i` as float32 samples in [-1, 1), at 16 kHz."""
        start = self.offsets[i]
        piece = self.samples[start : start + self.lengths[i]]
        return np.asarray(piece, np.float32) / np.float32(32768)


def load_speech(folder: Path) -> SpeechSet:
    """Maps a folder that `synthesise` or `corpus.prepare` wrote.

    Raises ConfigError if it is not there or not whole.
    """
    index, flat = folder / "index.tsv", folder / "samples.i16"
    if not (index.is_file() and flat.is_file()):
        raise ConfigError(f"no speech in {folder}: it needs index.tsv and samples.i16")
    with index.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    offsets = np.array([int(row["offset"]) for row in rows], np.int64)
    lengths = np.array([int(row["length"]) for row in rows], np.int64)
    if not rows or flat.stat().st_size != 2 * int(offsets[-1] + lengths[-1]):
        raise ConfigError(f"{flat} is not as long as its index says; make {folder} again")
    return SpeechSet(
        samples=np.memmap(flat, np.int16, "r"),
        offsets=offsets,
        lengths=lengths,
        texts=tuple(row["text"] for row in rows),
        voices=tuple(f"{row['engine']}/{row['voice']}" for row in rows),
    )
