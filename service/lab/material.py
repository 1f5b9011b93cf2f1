"""What is transcribed: recordings of a corpus by domain, or those of anyone's own manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.audio.decode import decode
from service.errors import ConfigError, InvalidAudio
from service.lab.manifest import Row, read_manifest
from service.lab.noise import halves, with_noise
from service.lab.packing import Item, Pcm, evenly, packed
from service.types import SAMPLE_RATE, WINDOW_SAMPLES

NOISE = "noise"  # the domain in which nothing is said
WORDLESS = ("noise", "silence")  # languages of its rows; only noise is mixed into speech
HISS_DB = (-80, -60)  # of full scale: a good and a bad recorder with nobody near
MAX_SECONDS = 24 * 3600
PACKED = "-packed"
NAME = re.compile(rf"(?P<folder>[^@]+?)(?P<packed>{PACKED})?(@(?P<snr>-?\d+(\.\d+)?)dB)?")


@dataclass(frozen=True, slots=True)
class Domain:
    """A kind of recordings: each alone, or packed to full windows, and with noise at a ratio."""

    folder: str
    packed: bool = False
    snr_db: float | None = None

    @property
    def name(self) -> str:
        noisy = "" if self.snr_db is None else f"@{self.snr_db:g}dB"
        return self.folder + PACKED * self.packed + noisy


def parse_domain(name: str) -> Domain:
    """`librispeech`, `librispeech-packed`, `librispeech-packed@10dB`. Raises ConfigError."""
    found = NAME.fullmatch(name)
    if found is None:
        raise ConfigError(f"domain {name!r}: use a name like german, german-packed@10dB")
    snr = found["snr"]
    domain = Domain(found["folder"], bool(found["packed"]), float(snr) if snr else None)
    if domain.folder == NOISE and (domain.packed or snr):
        raise ConfigError(f"domain {name!r}: noise is there alone only")
    return domain


@dataclass(slots=True)
class Material:
    """Rows by folder, decoded once: 2 MB a minute are held while it lives.

    `split`: `train`, `test` or `all`; rows without one belong to each. At most `limit` items of a
    domain, after packing.
    """

    folders: dict[str, list[Row]]
    split: str = "test"
    limit: int | None = None
    seed: int = 0
    _clips: dict[Path, Pcm] = field(default_factory=dict)

    def items(self, domain: Domain) -> list[Item]:
        """Raises ConfigError for a domain without recordings, or one that cannot be read."""
        if domain.folder not in self.folders:
            raise ConfigError(
                f"unknown domain {domain.name!r}; there are {', '.join(sorted(self.folders))}, "
                f"each also with {PACKED} and with @10dB"
            )
        rows = self.folders[domain.folder]
        if domain.folder == NOISE:
            return self._nothing_said(rows)
        items = self._read(self._of_split(rows, domain))
        if domain.packed:
            items = packed(items)
            if not items:
                raise ConfigError(f"{domain.name}: too little of each speaker to fill a window")
        if self.limit:
            items = evenly(items, self.limit)
        if domain.snr_db is not None:
            noises = self._noises(domain)
            items = [with_noise(item, noises, domain.snr_db, self.seed) for item in items]
        return items

    def _of_split(self, rows: Sequence[Row], domain: Domain) -> list[Row]:
        chosen = [row for row in rows if self.split == "all" or row.split in ("", self.split)]
        if not chosen:
            there = ", ".join(sorted({row.split for row in rows}))
            raise ConfigError(f"{domain.name} has nothing of split {self.split}; it has: {there}")
        return chosen

    def _read(self, rows: Iterable[Row]) -> list[Item]:
        new = [row for row in rows if row.path not in self._clips]
        for row in tqdm(new, desc="reading", unit="file", leave=False, disable=None):
            self._clips[row.path] = _pcm(row)
        return [
            Item(row.name, self._clips[row.path], row.text, row.language, row.speaker)
            for row in rows
        ]

    def _noises(self, domain: Domain) -> list[Pcm]:
        rows = [row for row in self.folders.get(NOISE, []) if row.language == NOISE]
        if not rows:
            raise ConfigError(f"{domain.name}: no noise; give the corpus folder that has some")
        return halves([item.pcm for item in self._read(rows)], self.split)

    def _nothing_said(self, rows: Sequence[Row]) -> list[Item]:
        """Noises cut every 30 s, silence and hiss; of both splits: nobody trains on them."""
        items = []
        for item in self._read([row for row in rows if row.language in WORDLESS]):
            for first in range(0, len(item.pcm), WINDOW_SAMPLES):
                name = f"{item.name} from {first // SAMPLE_RATE} s"
                items.append(Item(name, item.pcm[first : first + WINDOW_SAMPLES], "", "en"))
        items.append(Item("silence", np.zeros(WINDOW_SAMPLES, np.int16), "", "en"))
        rng = np.random.default_rng(self.seed)
        for level in HISS_DB:
            hiss = rng.standard_normal(WINDOW_SAMPLES) * 32768 * 10 ** (level / 20)
            items.append(Item(f"hiss at {level} dB", np.rint(hiss).astype(np.int16), "", "en"))
        return items


def of_corpus(corpus: Path) -> dict[str, list[Row]]:
    """The rows of a corpus folder's `manifest.tsv`, by the first folder of their paths."""
    path = corpus / "manifest.tsv"
    if not path.is_file():
        raise ConfigError(f"{corpus}: no manifest.tsv; give the corpus folder")
    folders: dict[str, list[Row]] = {}
    for row in read_manifest(path):
        folders.setdefault(Path(row.name).parts[0], []).append(row)
    return folders


def _pcm(row: Row) -> Pcm:
    with row.path.open("rb") as source:
        try:
            samples = decode(source, MAX_SECONDS).samples
        except InvalidAudio as error:
            raise ConfigError(f"{row.name}: {error}") from None
    pcm: Pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    return pcm
