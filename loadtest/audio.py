"""What is sent: recordings of a manifest, or a built-in mix of spoken digits."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import soundfile

from service.audio.decode import decode
from service.errors import ConfigError, WinnowError

SAMPLE = Path(__file__).resolve().parents[1] / "docs" / "samples" / "all-digits.wav"
# What is said in it, with the seconds at which each word begins and ends, in its pauses.
SAID = (
    ("zero", 0.08, 0.51),
    ("one", 0.58, 0.86),
    ("two", 0.92, 1.20),
    ("three", 1.27, 1.55),
    ("four", 1.62, 1.93),
    ("five", 2.00, 2.34),
    ("six", 2.41, 2.94),
    ("seven", 3.01, 3.48),
    ("eight", 3.54, 3.94),
    ("nine", 4.01, 4.43),
)
# How many recordings, and between how many seconds they last.
BUCKETS = ((8, 2, 4), (6, 6, 10), (4, 20, 28), (2, 50, 60))
BUILT_IN_MIX = f"spoken digits put together from docs/samples/{SAMPLE.name}: " + ", ".join(
    f"{number} of {least}-{most} s" for number, least, most in BUCKETS
)
LONGEST_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Recording:
    """A file to send, its length, and what is said in it where that is known."""

    name: str
    seconds: float
    transcript: str | None
    data: bytes


def read_manifest(path: Path, most: int, seed: int = 0) -> tuple[Recording, ...]:
    """The recordings of a table with the columns `path` and `transcript`, commas or tabs.

    Paths are relative to the table; an empty transcript is one that is not known. Of more than
    `most` rows that many are drawn by `seed`. Raises ConfigError for a table or a recording that
    cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            if "\t" in header:
                rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
            else:
                rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"manifest {path}: {error}") from error
    if not rows or "path" not in rows[0]:
        raise ConfigError(f"manifest {path}: needs a column 'path' and at least one recording")
    if len(rows) > most:
        rows = random.Random(seed).sample(rows, most)
    return tuple(_read(path.parent / row["path"], row.get("transcript")) for row in rows)


def _read(path: Path, transcript: str | None) -> Recording:
    try:
        data = path.read_bytes()
        seconds = decode(io.BytesIO(data), LONGEST_S).duration_s
    except (OSError, WinnowError) as error:
        raise ConfigError(f"recording {path}: {error}") from error
    return Recording(path.name, seconds, (transcript or "").strip() or None, data)


def built_in(seed: int = 0) -> tuple[Recording, ...]:
    """Strings of spoken digits, as many and as long as BUCKETS says; WAV, 16 kHz."""
    rng = np.random.default_rng(seed)
    voice, rate = soundfile.read(SAMPLE, dtype="int16")
    return tuple(
        _string(f"digits-{most}s-{i}", float(rng.uniform(least, most)), voice, rate, rng)
        for number, least, most in BUCKETS
        for i in range(number)
    )


def _string(
    name: str, seconds: float, voice: np.ndarray[Any, Any], rate: int, rng: np.random.Generator
) -> Recording:
    """Digits in phrases of three to eight, with a breath between phrases, for `seconds`."""
    samples = np.zeros(round(seconds * rate), np.int16)
    words: list[str] = []
    at_s, left = 0.25, int(rng.integers(3, 9))
    while True:
        word, begin_s, end_s = SAID[rng.integers(len(SAID))]
        if words and at_s + end_s - begin_s + 0.25 > seconds:
            break
        spoken = voice[round(begin_s * rate) : round(end_s * rate)]
        first = round(at_s * rate)
        samples[first : first + len(spoken)] = spoken
        words.append(word)
        left -= 1
        pause_s = rng.uniform(0.05, 0.25) if left else rng.uniform(0.6, 1.5)
        left = left or int(rng.integers(3, 9))
        at_s += end_s - begin_s + float(pause_s)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return Recording(name, seconds, " ".join(words), file.getvalue())


def in_turns(recordings: Sequence[Recording], seed: int = 0) -> Iterator[Recording]:
    """Endless: all of them in a shuffled order, then all again in another.

    So a long step sends exactly the mix, and a short one nearly.
    """
    rng = random.Random(seed)
    while True:
        yield from rng.sample(recordings, len(recordings))


def describe(recordings: Sequence[Recording]) -> str:
    """How many there are, how long they are, and of how many the words are known."""
    seconds = [recording.seconds for recording in recordings]
    known = sum(recording.transcript is not None for recording in recordings)
    return (
        f"{len(seconds)} recordings of {min(seconds):.1f}-{max(seconds):.1f} s, "
        f"median {median(seconds):.1f} s, mean {mean(seconds):.1f} s, {known} with a transcript"
    )
