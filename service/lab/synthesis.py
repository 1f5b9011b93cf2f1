"""Spoken digit strings from free speech synthesisers: what `winnow-nano` learns to read.

Three engines, as far apart in kind as free ones get: espeak-ng (formants, many accents and
timbres), flite and festival (recorded speech, cut and joined). `plan` decides who says what and
how, from a seed alone; `synthesise` has it said and writes it to one flat file; `load` maps that
file. Voices kept for the test split never speak in the train split.
"""

from __future__ import annotations

import csv
import itertools
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
from tqdm import tqdm

from service.errors import ConfigError, EngineError

SAMPLE_RATE = 16_000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLITS = ("train", "test")

_ENGINES = ("espeak-ng", "flite", "festival")
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

_MARGIN = SAMPLE_RATE // 20  # 50 ms
_SILENCE = 0.003  # of the peak: below every fricative, above dither
_CHUNK = 100  # strings handed to one thread; festival starts once for its share of them
_PEAK = 0.97

# `Utterance` does not evaluate what it is given: without `eval` every file says "text".
_SCHEME_HEAD = """
(define (say text file)
  (let ((u (eval (list 'Utterance 'Text text))))
    (utt.synth u)
    (utt.save.wave u file 'riff)))
"""

# Draws a transcript and the prompt that has it said.
Script = Callable[[random.Random], tuple[str, str]]
Wave = npt.NDArray[np.float32]
Samples = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Spoken:
    """One string to be said: `text` is the transcript, `prompt` what the engine is given.

    `rate` is relative (1 is the engine's own tempo), `pitch` runs from 0 (low) to 1 (high),
    `pitch_range` is relative (1 is the engine's own), `gap` is espeak's word gap in 10 ms.
    """

    text: str
    prompt: str
    engine: str
    voice: str
    rate: float
    pitch: float
    pitch_range: float
    gap: int


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

    def get(self, i: int) -> Wave:
        """String `i` as float32 samples in [-1, 1), at 16 kHz."""
        start = self.offsets[i]
        piece = self.samples[start : start + self.lengths[i]]
        return np.asarray(piece, np.float32) / np.float32(32768)


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


def load(folder: Path) -> SpeechSet:
    """Map a folder that `synthesise` wrote. Raises ConfigError if it is not there or not whole."""
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


def missing_engines() -> list[str]:
    """The synthesisers that are not on the search path."""
    return [engine for engine in _ENGINES if shutil.which(engine) is None]


def say(spoken: list[Spoken]) -> list[Samples]:
    """16 kHz samples of each string. Raises EngineError if an engine fails or gives no sound."""
    festival = _festival([one for one in spoken if one.engine == "festival"])
    waves = []
    for one in spoken:
        wave = _finish(next(festival) if one.engine == "festival" else _run(_command(one)))
        if wave is None:
            raise EngineError(f"{one.engine} voice {one.voice} gave no sound for {one.prompt!r}")
        waves.append(wave)
    return waves


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
        engine = draw.choices(_ENGINES, _ENGINE_SHARES)[0]
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


def _run(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise EngineError(f"{command[0]} ended with {done.returncode}: {said}")
    return done.stdout


def _command(one: Spoken) -> list[str]:
    if one.engine == "espeak-ng":
        marked = f'<prosody range="{one.pitch_range:.0%}">{one.prompt}</prosody>'
        options = f"-m -s {175 * one.rate:.0f} -p {10 + 80 * one.pitch:.0f} -g {one.gap}".split()
        return ["espeak-ng", "-v", one.voice, *options, "--stdout", marked]
    return [
        *("flite", "-voice", one.voice),
        *("--setf", f"duration_stretch={1 / one.rate:.3f}"),
        *("--setf", f"int_f0_target_mean={70 + 190 * one.pitch:.0f}"),
        *("-t", one.prompt, "-o", "/dev/stdout"),
    ]


def _festival(spoken: list[Spoken]) -> Iterator[bytes]:
    """Wav files of `spoken` in order, from one festival process: its start costs a second."""
    if not spoken:
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lines = [_SCHEME_HEAD]
        for i, one in enumerate(spoken):
            lines.append(f'{_scheme_voice(one)}\n(say "{one.prompt}" "{folder / str(i)}.wav")')
        script = folder / "say.scm"
        script.write_text("\n".join(lines), encoding="ascii")
        _run(["festival", "-b", str(script)])
        for i in range(len(spoken)):
            yield (folder / f"{i}.wav").read_bytes()


def _scheme_voice(one: Spoken) -> str:
    """Choosing a voice resets its tempo and melody, so both are set after it each time."""
    if one.voice.endswith("_hts"):
        # The tempo is all that festival hands on to this engine; its melody stays as trained.
        change = f'(set! hts_engine_params (cons (list "-r" {one.rate}) hts_engine_params))'
    else:
        mean, spread = 80 + 120 * one.pitch, 14 * one.pitch_range
        target = f"(target_f0_mean {mean:.0f}) (target_f0_std {spread:.1f})"
        change = (
            f"(Parameter.set 'Duration_Stretch {1 / one.rate:.3f})"
            f"(set! int_lr_params '({target} (model_f0_mean 170) (model_f0_std 34)))"
        )
    return f"(voice_{one.voice}) {change}"


def _finish(wav: bytes) -> Samples | None:
    """16 kHz samples with at most 50 ms of silence at either end; None if there is no sound."""
    wave, rate = _parse(wav)
    if len(wave) == 0:
        return None
    wave = np.asarray(soxr.resample(wave, rate, SAMPLE_RATE), np.float32)
    peak = float(np.abs(wave).max(initial=0.0))
    if peak < 0.01:
        return None
    loud = np.flatnonzero(np.abs(wave) > _SILENCE * peak)
    wave = wave[max(0, loud[0] - _MARGIN) : loud[-1] + 1 + _MARGIN]
    # A resampled wave can overshoot full scale; scaled, not clipped, it stays the same speech.
    wave = wave * min(1.0, _PEAK / peak)
    return np.round(wave * 32767).astype(np.int16)


def _parse(wav: bytes) -> tuple[Wave, int]:
    """Samples and rate of a 16-bit mono wav. Piped ones have no true length in their header."""
    at = wav.find(b"data", 12)
    if wav[:4] != b"RIFF" or at < 0:
        return np.zeros(0, np.float32), SAMPLE_RATE
    rate = int.from_bytes(wav[24:28], "little")
    body = wav[at + 8 :]
    samples = np.frombuffer(body[: len(body) // 2 * 2], "<i2")
    return samples.astype(np.float32) / np.float32(32768), rate
