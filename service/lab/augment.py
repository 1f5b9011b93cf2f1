"""Perturbations of training speech: what makes a few voices stand for many.

All take and return float32 mono at 16 kHz, and draw from the generator they are given.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

from service.types import SAMPLE_RATE, Samples


def change_speed(samples: Samples, factor: float) -> Samples:
    """Plays `factor` times faster: tempo, pitch and formants move together, as in a tape."""
    return _resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE)


def telephone(samples: Samples) -> Samples:
    """Keeps what an 8 kHz line carries."""
    wide = _resample(_resample(samples, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)
    return _fit(wide, len(samples))


def colour(samples: Samples, rng: np.random.Generator, reverberant: bool) -> Samples:
    """A random frequency response (up to 9 dB) and, if asked for, a random room."""
    size = 1 << (len(samples) + SAMPLE_RATE // 2 - 1).bit_length()
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    knots = np.array([50, 200, 500, 1000, 2000, 4000, 8000])
    gains_db = rng.uniform(-4.5, 4.5, len(knots))
    response = 10 ** (np.interp(frequencies, knots, gains_db) / 20)
    spectrum = np.fft.rfft(samples, size) * response
    if reverberant:
        spectrum = spectrum * np.fft.rfft(_room(rng), size)
    coloured: Samples = np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)
    return coloured


def _room(rng: np.random.Generator) -> Samples:
    decay_s = rng.uniform(0.1, 0.5)
    time_s = np.arange(int(decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time_s)) * np.exp(-6.9 * time_s / decay_s)
    tail *= rng.uniform(0.05, 0.4) / np.sqrt(np.sum(tail**2))
    tail[0] += 1
    return tail.astype(np.float32)


def noise(length: int, rng: np.random.Generator) -> Samples:
    """Coloured noise of unit power: white to brown."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequencies = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    frequencies[0] = frequencies[1] if length > 1 else 1
    shaped = np.fft.irfft(spectrum * np.maximum(frequencies, 30) ** -rng.uniform(0, 1), length)
    unit: Samples = (shaped / (np.sqrt(np.mean(shaped**2)) + 1e-9)).astype(np.float32)
    return unit


def add_noise(samples: Samples, background: Samples, snr_db: float) -> Samples:
    """Mixes in a background at a signal-to-noise ratio over the loud half of the signal."""
    loud = np.abs(samples) > np.abs(samples).mean()
    power = float(np.mean(samples[loud] ** 2)) if loud.any() else 1e-4
    scale = np.sqrt(power / 10 ** (snr_db / 10) / (np.mean(background**2) + 1e-12))
    mixed: Samples = samples + (scale * background).astype(np.float32)
    return mixed


def warp_mel(mel_FT: Samples, factor: float) -> Samples:
    """Stretches the mel axis about its bottom: another length of vocal tract."""
    bins = len(mel_FT)
    source = np.clip(np.arange(bins) * factor, 0, bins - 1)
    low = source.astype(int)
    high = np.minimum(low + 1, bins - 1)
    share = (source - low)[:, None].astype(np.float32)
    warped: Samples = mel_FT[low] * (1 - share) + mel_FT[high] * share
    return warped


def mask(mel_FT: Samples, rng: np.random.Generator) -> Samples:
    """SpecAugment: two bands of mel bins and stripes of time set to the window's mean."""
    bins, frames = mel_FT.shape
    bands = _stripes(bins, 10, 2, rng)
    spans = _stripes(frames, 8, max(1, frames // 150), rng)
    masked: Samples = np.where(bands[:, None] | spans, mel_FT.mean(), mel_FT)
    return masked


def _stripes(size: int, width: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    hidden = np.zeros(size, bool)
    for length in rng.integers(0, width + 1, count):
        start = int(rng.integers(size - length + 1))
        hidden[start : start + length] = True
    return hidden


def _resample(samples: Samples, rate_in: float, rate_out: float) -> Samples:
    resampled: Samples = soxr.resample(samples, rate_in, rate_out, quality="LQ")
    return resampled


def _fit(samples: Samples, length: int) -> Samples:
    if len(samples) >= length:
        return samples[:length]
    return np.pad(samples, (0, length - len(samples)))
