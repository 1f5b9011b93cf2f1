"""What a model is measured on, by domain. Sets are made once and kept under names that say from
what: another corpus, other texts or another number of strings make another set."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.errors import ConfigError
from service.lab import corpus, synthesis
from service.lab.corpus import Row
from service.lab.evaluate import Utterance, connected_digits, in_windows, whole, with_pauses
from service.lab.sentences import draw_sentence, plain, read_books
from service.lab.speech_set import SpeechSet, load_speech
from service.types import WINDOW_SAMPLES

SEED = 2  # of what the unseen voices say


@dataclass(frozen=True, slots=True)
class Places:
    """Where recordings and books are, where sets are kept, and how many strings they have."""

    corpus: Path
    data: Path
    strings: int
    text: Path | None = None


def recorded_digits(places: Places) -> SpeechSet:
    """Single digits of the speaker that nobody trains on."""
    return _recorded(places, "digits", "test")


def _digits(places: Places) -> list[Utterance]:
    return connected_digits(recorded_digits(places), places.strings)


def _paused_digits(places: Places) -> list[Utterance]:
    return with_pauses(_digits(places))


def _synthetic_digits(places: Places) -> list[Utterance]:
    return whole(_spoken(places, "synthetic"))


def _sentences(places: Places) -> list[Utterance]:
    if places.text is None:
        raise ConfigError("the domain sentences needs --text, a folder of books")
    sentences = read_books(places.text, "test")
    made_from = zlib.crc32("\n".join(sentences).encode())
    script = partial(draw_sentence, sentences=sentences)
    return whole(_spoken(places, f"sentences-{made_from:08x}", script))


def _librispeech(places: Places) -> list[Utterance]:
    """As many as there are to be strings, evenly from all, so that every speaker is among them."""
    read = whole(_recorded(places, "librispeech", "test", plain))
    fitting = [u for u in read if len(u.samples) <= WINDOW_SAMPLES]
    count = min(places.strings, len(fitting))
    return [fitting[i * len(fitting) // count] for i in range(count)]


def _noise(places: Places) -> list[Utterance]:
    return in_windows(_recorded(places, "noise", None))


@dataclass(frozen=True, slots=True)
class Domain:
    """A kind of sound: what it is, and how it is had."""

    title: str
    utterances: Callable[[Places], list[Utterance]]


DOMAINS = {
    "digits": Domain("connected digits, unseen real speaker", _digits),
    "paused": Domain("the same, two to four with pauses between", _paused_digits),
    "synthetic": Domain("connected digits, unseen synthetic voices", _synthetic_digits),
    "sentences": Domain("sentences, unseen synthetic voices and book", _sentences),
    "librispeech": Domain("LibriSpeech, unseen speakers", _librispeech),
    "noise": Domain("noise, windows with text", _noise),
}


def _recorded(
    places: Places, kind: str, split: str | None, written: Callable[[str], str] = str
) -> SpeechSet:
    """The corpus' recordings of a kind, of one split or of all."""

    def wanted(row: Row) -> bool:
        return row["path"].startswith(f"{kind}/") and split in (None, row["split"])

    manifest = places.corpus / "manifest.tsv"
    made_from = zlib.crc32(manifest.read_bytes()) if manifest.is_file() else 0
    folder = places.data / f"{kind}-{made_from:08x}"
    corpus.prepare(places.corpus, folder, wanted, written)
    return load_speech(folder)


def _spoken(places: Places, kind: str, script: synthesis.Script | None = None) -> SpeechSet:
    folder = places.data / f"{kind}-{places.strings}"
    if not folder.exists():
        synthesis.synthesise(folder, "test", places.strings, SEED, script=script)
    return load_speech(folder)
