"""Three speech synthesisers as one: what is to be said, to samples.

They are as far apart in kind as free ones get: espeak-ng (formants, many accents and timbres),
flite and festival (recorded speech, cut and joined).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from service.errors import EngineError
from service.types import SAMPLE_RATE, Samples

ENGINES = ("espeak-ng", "flite", "festival")
_MARGIN = SAMPLE_RATE // 20  # 50 ms
_SILENCE = 0.003  # of the peak: below every fricative, above dither
_PEAK = 0.97

# `Utterance` does not evaluate what it is given: without `eval` every file says "text".
_SCHEME_HEAD = """
(define (say text file)
  (let ((u (eval (list 'Utterance 'Text text))))
    (utt.synth u)
    (utt.save.wave u file 'riff)))
"""

Pcm = npt.NDArray[np.int16]


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


def missing_engines() -> list[str]:
    """The synthesisers that are not on the search path."""
    return [engine for engine in ENGINES if shutil.which(engine) is None]


def say(spoken: list[Spoken]) -> list[Pcm]:
    """16 kHz samples of each string. Raises EngineError if an engine fails or gives no sound."""
    festival = _festival([one for one in spoken if one.engine == "festival"])
    waves = []
    for one in spoken:
        wave = _finish(next(festival) if one.engine == "festival" else _run(_command(one)))
        if wave is None:
            raise EngineError(f"{one.engine} voice {one.voice} gave no sound for {one.prompt!r}")
        waves.append(wave)
    return waves


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


def _finish(wav: bytes) -> Pcm | None:
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


def _parse(wav: bytes) -> tuple[Samples, int]:
    """Samples and rate of a 16-bit mono wav. Piped ones have no true length in their header."""
    at = wav.find(b"data", 12)
    if wav[:4] != b"RIFF" or at < 0:
        return np.zeros(0, np.float32), SAMPLE_RATE
    rate = int.from_bytes(wav[24:28], "little")
    body = wav[at + 8 :]
    samples = np.frombuffer(body[: len(body) // 2 * 2], "<i2")
    return samples.astype(np.float32) / np.float32(32768), rate
