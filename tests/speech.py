"""Real speech for tests: the samples of the repository, and the corpus where it is present."""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

from service.audio.decode import decode
from service.types import SAMPLE_RATE, Samples

REPOSITORY = Path(__file__).parents[1]
SAMPLES = REPOSITORY / "docs" / "samples"
SAMPLE = SAMPLES / "ljspeech.flac"
SAID = (
    "Printing, then, for our purpose, may be considered as the art of making books by means of "
    "movable types."
)
NAME_SAMPLE = SAMPLES / "ljspeech-name.flac"
GERMAN = SAMPLES / "german.flac"
GERMAN_SAID = "Die Werbung vermittelt einen falschen Eindruck."
JAPANESE = SAMPLES / "japanese.flac"
JAPANESE_SAID = "客観的実在の判断的知識が成立するのである。"
CORPUS = REPOSITORY.parent / "shared" / "corpus"

needs_corpus = pytest.mark.skipif(
    not CORPUS.is_dir(), reason="the speech corpus is not beside this repository"
)


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording of the corpus."""

    path: Path
    split: str
    speaker: str
    language: str
    transcript: str


def clips(folder: str) -> list[Clip]:
    """Those of a folder of the corpus, in the manifest's order."""
    with (CORPUS / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        return [
            Clip(CORPUS / r["path"], r["split"], r["speaker"], r["language"], r["transcript"])
            for r in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if r["path"].startswith(f"{folder}/")
        ]


def samples_of(path: Path) -> Samples:
    """A recording of at most two minutes."""
    with path.open("rb") as source:
        return decode(source, 120).samples


def seconds(of_s: float) -> int:
    """In samples."""
    return round(of_s * SAMPLE_RATE)


@cache
def _english() -> EnglishTextNormalizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its spellings' file open
        return EnglishTextNormalizer()


def normalised(text: str, language: str = "en") -> str:
    """As Whisper's normaliser has it."""
    return str(_english()(text) if language == "en" else BasicTextNormalizer()(text)).strip()
