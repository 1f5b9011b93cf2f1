"""Spoken digit strings from free speech synthesisers: what `winnow-nano` learns to read.

`plan` decides who says what and how, from a seed alone; `synthesise` has it said and writes it to
one flat file. Voices kept for the test split never speak in the train split.
"""

from __future__ import annotations

import csv
import itertools
import random
import re
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tqdm import tqdm

from service.errors import ConfigError
from service.lab.synthesisers import ENGINES, Spoken, missing_engines, say

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLITS = ("train", "test")

_ENGINE_SHARES = (0.65, 0.25, 0.10)
_OH_SHARE = 0.03  # of zeros
_SINGLE_SHARE = 0.27  # of train strings: one digit alone, the easiest thing to align
_INSTALL = (
    "sudo apt-get install espeak-ng flite festival "
    "festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts"
)

# By file: a name such as en-gb can also mean an mbrola voice, which is not free.
_TEST_ACCENT = "gmw/en-GB-scotland"
_ACCENTS = (
    *("gmw/en", "gmw/en-029", _TEST_ACCENT, "gmw/en-GB-x-gbclan", "gmw/en-GB-x-gbcwmd"),
    *("gmw/en-GB-x-rp", "gmw/en-US", "gmw/en-US-nyc"),
)
_TEST_VARIANT_STEP = 10
_FLITE = {"train": ("awb", "kal", "kal16", "slt"), "test": ("rms",)}
_FESTIVAL = {"train": ("cmu_us_slt_arctic_hts", "kal_diphone"), "test": ("ked_diphone",)}

# Slowest and fastest tempo; festival's own voices are quick by themselves.
_RATES = {"espeak-ng": (110 / 175, 260 / 175), "flite": (1 / 1.5, 1 / 0.7), "festival": (0.55, 1.2)}

_CHUNK = 100  # strings handed to one thread; festival starts once for its share of them

# Draws a transcript and the prompt that has it said.
Script = Callable[[random.Random], tuple[str, str]]


def synthesise(
    folder: Path,
    split: str,
    count: int,
    seed: int,
    processes: int = 2,
    script: Script | None = None,
) -> None:
    """Say `count` strings and write `folder/samples.i16` and `folder/index.tsv`.

    `split` is `train` or `test`, which differ in voices and in lengths of strings. `script` draws
    what is said, digit strings where there is none. The same
    arguments and the same engine versions give the same bytes. The folder appears whole, when
    the last string is said. `processes` is how many engines run at once.

    Raises ConfigError if an engine is missing, the folder exists or an argument is out of range.
    """
    if missing := missing_engines():
        raise ConfigError(f"missing speech synthesis: {', '.join(missing)}; install: {_INSTALL}")
    if folder.exists():
        raise ConfigError(f"{folder} exists already; remove it or choose another folder")
    if processes < 1:
        raise ConfigError(f"processes is {processes}; it must be at least 1")
    spoken = plan(split, count, seed, script)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        whole = Path(scratch) / "whole"
        whole.mkdir()
        _write(whole, spoken, processes)
        whole.rename(folder)


def plan(split: str, count: int, seed: int, script: Script | None = None) -> list[Spoken]:
    """Who says what and how: a function of its arguments and of the voices installed."""
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}")
    if count < 1:
        raise ConfigError(f"count is {count}; it must be at least 1")
    draw = random.Random(f"{split}-{seed}")
    espeak = espeak_voices(split)
    spoken = []
    for _ in range(count):
        text, prompt = script(draw) if script else (_digits(draw, split), "")
        engine = draw.choices(ENGINES, _ENGINE_SHARES)[0]
        pool = {"espeak-ng": espeak, "flite": _FLITE[split], "festival": _FESTIVAL[split]}[engine]
        spoken.append(
            Spoken(
                text=text,
                prompt=prompt or _punctuate(draw, text),
                engine=engine,
                voice=draw.choice(pool),
                rate=round(draw.uniform(*_RATES[engine]), 3),
                pitch=round(draw.random(), 3),
                pitch_range=round(draw.uniform(0.4, 1.8), 2),
                gap=draw.choice((0, 0, 0, 1, 2, 4, 8)),
            )
        )
    return spoken


@cache
def espeak_voices(split: str) -> tuple[str, ...]:
    """espeak-ng voices as accent+variant. Test has one accent and each tenth variant to itself."""
    heading = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"Data at: (.+)", heading.stdout)
    if found is None:
        raise ConfigError("espeak-ng --version does not say where its data is; 1.49 or later does")
    variants = sorted(path.name for path in (Path(found[1].strip()) / "voices" / "!v").iterdir())
    kept = set(variants[::_TEST_VARIANT_STEP])
    voices = itertools.product(_ACCENTS, variants)
    return tuple(
        f"{accent}+{variant}"
        for accent, variant in voices
        if (accent == _TEST_ACCENT or variant in kept) == (split == "test")
    )


def _digits(draw: random.Random, split: str) -> str:
    if split == "test":
        length = draw.randint(3, 10)
    else:
        length = 1 if draw.random() < _SINGLE_SHARE else draw.randint(2, 10)
    words = [draw.choice(DIGITS) for _ in range(length)]
    return " ".join("oh" if w == "zero" and draw.random() < _OH_SHARE else w for w in words)


def _punctuate(draw: random.Random, text: str) -> str:
    """The text with commas or full stops between groups, so that melody and pauses vary."""
    mark, longest = draw.choices(((" ", 1), (", ", 4), (". ", 4), (", ", 1)), (40, 35, 15, 10))[0]
    words = text.split()
    groups = []
    while words:
        size = draw.randint(1, longest)
        groups.append(" ".join(words[:size]))
        words = words[size:]
    return mark.join(groups) + draw.choice(("", "."))


def _write(folder: Path, spoken: list[Spoken], processes: int) -> None:
    chunks = [spoken[at : at + _CHUNK] for at in range(0, len(spoken), _CHUNK)]
    offset = 0
    with (
        (folder / "samples.i16").open("wb") as flat,
        (folder / "index.tsv").open("w", encoding="utf-8", newline="") as lines,
        ThreadPoolExecutor(processes) as pool,
        tqdm(total=len(spoken), unit="string", desc="speech") as bar,
    ):
        index = csv.writer(lines, delimiter="\t", lineterminator="\n")
        index.writerow(("offset", "length", "engine", "voice", "text"))
        for chunk, waves in zip(chunks, pool.map(say, chunks), strict=True):
            for one, wave in zip(chunk, waves, strict=True):
                flat.write(wave.tobytes())
                index.writerow((offset, len(wave), one.engine, one.voice, one.text))
                offset += len(wave)
            bar.update(len(chunk))
