"""What is sent: recordings of a manifest, or a built-in mix of real speech."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
import soundfile

from service.audio.decode import decode
from service.errors import ConfigError, WinnowError
from service.types import SAMPLE_RATE, Samples

SAMPLE = Path(__file__).resolve().parents[1] / "docs" / "samples" / "ljspeech-mix.opus"
# What is said in it, with the seconds at which each sentence begins and ends, in its pauses.
SAID = (
    ("in being comparatively modern.", 0.5, 2.4),
    ("has never been surpassed.", 2.9, 4.68),
    ("than in the same operations with ugly ones.", 5.18, 7.77),
    (
        "produced the block books, which were the immediate predecessors of the true printed book,",
        8.27,
        13.41,
    ),
    (
        "the invention of movable metal letters in the middle of the fifteenth century may justly "
        "be considered as the invention of the art of printing.",
        13.91,
        22.02,
    ),
    (
        "Now, as all books not primarily intended as picture-books consist principally of types "
        "composed to form letterpress,",
        22.52,
        31.34,
    ),
    (
        "especially as no more time is occupied, or cost incurred, in casting, setting, or "
        "printing beautiful letters",
        31.84,
        40.07,
    ),
    (
        "The Middle Ages brought calligraphy to perfection, and it was natural therefore",
        40.57,
        45.84,
    ),
    (
        "that the forms of printed letters should follow more or less closely those of the "
        "written character, and they followed them very closely.",
        46.34,
        53.36,
    ),
    (
        "The first books were printed in black letter, i.e. the letter which was a Gothic "
        "development of the ancient Roman character,",
        53.86,
        61.34,
    ),
    ('the "lower-case" being in fact invented in the early Middle Ages.', 61.84, 66.52),
    (
        "imitates a much freer hand, simpler, rounder, and less spiky, and therefore far "
        "pleasanter and easier to read.",
        67.02,
        75.88,
    ),
    (
        "a very few years saw the birth of Roman character not only in Italy, but in Germany and "
        "France.",
        76.38,
        83.3,
    ),
    (
        "and used an exceedingly beautiful type, which is indeed to look at a transition between "
        "Gothic and Roman,",
        83.8,
        90.88,
    ),
)
EDGE_S = 0.25  # of silence before the first sentence and after the last
# How many recordings, and between how many seconds they last.
BUCKETS = ((8, 2.5, 4.0), (6, 6.0, 10.0), (4, 20.0, 28.0), (2, 50.0, 60.0))
BUILT_IN_MIX = f"sentences of docs/samples/{SAMPLE.name}, read by one person: " + ", ".join(
    f"{number} of {least:g}-{most:g} s" for number, least, most in BUCKETS
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
    """Sentences of real speech, as many and as long as BUCKETS says; WAV, 16 kHz."""
    rng = np.random.default_rng(seed)
    with SAMPLE.open("rb") as source:
        voice = decode(source, LONGEST_S).samples
    return tuple(
        _spoken(f"speech-{most:g}s-{i}", float(rng.uniform(least, most)), voice, rng)
        for number, least, most in BUCKETS
        for i in range(number)
    )


def _spoken(name: str, seconds: float, voice: Samples, rng: np.random.Generator) -> Recording:
    """Sentences in a drawn order, none twice, as many as find room in `seconds`."""
    samples = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    texts: list[str] = []
    at_s = EDGE_S
    for number in rng.permutation(len(SAID)):
        text, begin_s, end_s = SAID[number]
        if at_s + end_s - begin_s + EDGE_S > seconds:
            continue
        spoken = voice[round(begin_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
        first = round(at_s * SAMPLE_RATE)
        samples[first : first + len(spoken)] = spoken
        texts.append(text)
        at_s += end_s - begin_s + float(rng.uniform(0.3, 0.8))
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV")
    return Recording(name, seconds, " ".join(texts), file.getvalue())


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
