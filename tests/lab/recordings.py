"""Recordings for the fake model, which names the loudest band of each second, and lists of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from service.lab.packing import Item, Pcm
from service.types import SAMPLE_RATE


def tone(hertz: float, seconds: float) -> Pcm:
    """0 Hz is silence."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    pcm: Pcm = np.rint(9000 * np.sin(2 * np.pi * hertz * times)).astype(np.int16)
    return pcm


def item(name: str, text: str, *parts: Pcm, speaker: str = "x") -> Item:
    return Item(name, np.concatenate(parts), text, "en", speaker)


def write(path: Path, pcm: Pcm) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, pcm, SAMPLE_RATE)


def corpus(folder: Path) -> Path:
    """Six utterances of two speakers, 10 s each, one of them for training, and two noises."""
    rows = ["path\tsplit\tseconds\tspeaker\tlanguage\ttranscript\tlicence"]
    for number in range(6):
        name = f"read/{number}.wav"
        write(folder / name, tone(300 + 200 * number, 10))
        split = "train" if number == 5 else "test"
        rows.append(f"{name}\t{split}\t10\t{'xy'[number % 2]}\ten\tword {number}\tnone")
    rng = np.random.default_rng(0)
    for name, language, seconds in (("fan", "noise", 40), ("room", "silence", 3)):
        hiss = rng.standard_normal(seconds * SAMPLE_RATE) * 500
        write(folder / "noise" / f"{name}.wav", hiss.astype(np.int16))
        rows.append(f"noise/{name}.wav\ttrain\t{seconds}\t\t{language}\t\tnone")
    (folder / "manifest.tsv").write_text("\n".join(rows) + "\n")
    return folder
