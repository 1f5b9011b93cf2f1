"""Recordings for training and measurement, as flat int16 sets that a process can map.

A set is a folder with `samples.i16` (16 kHz mono, all utterances end to end) and `index.tsv`
(offset, length, engine, voice, text); `synthesis` writes its speech the same way.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service.audio.decode import decode
from service.errors import ConfigError

MAX_SECONDS = 600.0

Row = dict[str, str]


def read_manifest(corpus: Path) -> list[Row]:
    """The rows of `manifest.tsv`. Raises ConfigError where there is none."""
    path = corpus / "manifest.tsv"
    if not path.is_file():
        raise ConfigError(f"{corpus}: no manifest.tsv; give the corpus folder")
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def prepare(
    corpus: Path,
    folder: Path,
    wanted: Callable[[Row], bool],
    written: Callable[[str], str] = str,
) -> None:
    """Decodes the manifest's wanted rows into a set, unless `folder` holds it already.

    `written` brings a transcript to the form that the set is to have.
    """
    if (folder / "index.tsv").exists():
        return
    rows = [row for row in read_manifest(corpus) if wanted(row)]
    if not rows:
        raise ConfigError(f"{corpus}: the manifest has nothing for {folder.name}")
    folder.mkdir(parents=True, exist_ok=True)
    lines, offset = [], 0
    with (folder / "samples.i16").open("wb") as out:
        for row in tqdm(rows, desc=folder.name, unit="clip"):
            with (corpus / row["path"]).open("rb") as source:
                samples = decode(source, MAX_SECONDS).samples
            pcm = np.clip(np.rint(samples * 32767), -32768, 32767).astype(np.int16)
            out.write(pcm.tobytes())
            kind = row["path"].split("/")[0]
            lines.append(
                [offset, len(pcm), kind, row["speaker"], written(row["transcript"].strip('"'))]
            )
            offset += len(pcm)
    partial = folder / "index.tsv.part"
    with partial.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
        writer.writerow(["offset", "length", "engine", "voice", "text"])
        writer.writerows(lines)
    os.replace(partial, folder / "index.tsv")
