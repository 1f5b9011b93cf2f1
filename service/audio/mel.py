"""Whisper's log-mel spectrogram: the features its encoder was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from service.transfer import sent
from service.types import SAMPLE_RATE, WINDOW_SAMPLES, Samples

_FFT_SAMPLES, _HOP_SAMPLES = 400, 160
_FRAMES = WINDOW_SAMPLES // _HOP_SAMPLES
_FLOOR = 1e-10  # power; what a frame of silence gets
_RANGE = 8.0  # decades below a window's loudest value that are kept


def log_mel(
    windows: Sequence[Samples], num_mels: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Log-mel of 16 kHz windows, each padded with silence or cut to 30 s.

    Returns float32 (B, num_mels, 3000) on `device`. Equal to `WhisperFeatureExtractor` and to
    `whisper.log_mel_spectrogram` (arXiv 2212.04356, section 2.2): power of a 25 ms Hann window
    every 10 ms, Slaney mel filters, log10, at most 8 decades below each window's own maximum.
    Padding costs nothing: its frames are known without a Fourier transform.
    """
    device = torch.device(device)
    mel_BFT = torch.full((len(windows), num_mels, _FRAMES), _FLOOR, device=device)
    # A CPU takes half the time where one window at a time fits its cache.
    at_once = 1 if device.type == "cpu" else max(1, len(windows))
    for first in range(0, len(windows), at_once):
        samples_BS = sent(_padded(windows[first : first + at_once]), device)
        power_BFT = _power(samples_BS, num_mels)
        mel_BFT[first : first + at_once, :, : power_BFT.shape[-1]] = power_BFT
        _compress(mel_BFT[first : first + at_once])
    return mel_BFT


def _power(samples_BS: torch.Tensor, num_mels: int) -> torch.Tensor:
    """Power in each mel band every 10 ms, (B, num_mels, S // 160), of 16 kHz windows of any length.

    Nothing is padded: past either end of a window the transform hears its mirror image.
    """
    hann, filters_FK = _hann(samples_BS.device), _filters(num_mels, samples_BS.device)
    spectrum = torch.stft(samples_BS, _FFT_SAMPLES, _HOP_SAMPLES, window=hann, return_complex=True)
    return filters_FK @ spectrum[..., :-1].abs().square()


def _compress(mel_BFT: torch.Tensor) -> None:
    """Powers become what a model reads: log10, at most 8 decades below each window's maximum."""
    log_BFT = mel_BFT.clamp_(min=_FLOOR).log10_()
    loudest = log_BFT.amax(dim=(1, 2), keepdim=True)
    log_BFT.clamp_(min=loudest - _RANGE).add_(4).div_(4)


def _padded(windows: Sequence[Samples]) -> torch.Tensor:
    """(B, S): as long as the longest window and the frames that reach into it, at most 30 s.

    Short of 30 s it ends in half a frame of silence and more, so that mirroring the end, which
    the transform does, mirrors silence.
    """
    longest = max((len(window) for window in windows), default=0)
    reach = longest + _FFT_SAMPLES // 2 + 1
    size = min(WINDOW_SAMPLES, -(-reach // _HOP_SAMPLES) * _HOP_SAMPLES)
    padded = np.zeros((len(windows), size), np.float32)
    for row, window in zip(padded, windows, strict=True):
        row[: len(window)] = window[:size]
    return torch.from_numpy(padded)


@cache
def _hann(device: torch.device) -> torch.Tensor:
    return torch.hann_window(_FFT_SAMPLES, device=device)


@cache
def _filters(num_mels: int, device: torch.device) -> torch.Tensor:
    """Slaney's triangular filters of equal area, 0 to 8 kHz: (num_mels, 201)."""
    edges = _mel_to_hz(np.linspace(0, _hz_to_mel(SAMPLE_RATE / 2), num_mels + 2))
    bins = np.linspace(0, SAMPLE_RATE / 2, _FFT_SAMPLES // 2 + 1)
    low, centre, high = (edges[i : num_mels + i, None] for i in range(3))
    rising = (bins - low) / (centre - low)
    falling = (high - bins) / (high - centre)
    triangles = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return torch.from_numpy(triangles).to(device, torch.float32)


# Slaney's scale (Auditory Toolbox, 1998): linear to 1 kHz at 15 mels, then 27 mels to a factor 6.4.
_LINEAR_HZ_PER_MEL, _KNEE_MEL, _KNEE_HZ = 200 / 3, 15.0, 1000.0
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    """For frequencies above 1 kHz."""
    return float(_KNEE_MEL + np.log(hz / _KNEE_HZ) / _LOG_STEP)


def _mel_to_hz(
    mel: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    linear = mel * _LINEAR_HZ_PER_MEL
    return np.where(mel < _KNEE_MEL, linear, _KNEE_HZ * np.exp((mel - _KNEE_MEL) * _LOG_STEP))
