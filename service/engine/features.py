"""Windows of samples -> what the model reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.audio.mel import log_mel
from service.model.protocol import ModelInfo
from service.transfer import sent
from service.types import WINDOW_SAMPLES, Samples


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What `SpeechModel.encode` is given: a log-mel (B, num_mels, 3000), or samples (B, 1, S) that
    end in zeros where another window is longer; and how much of each holds the recording."""

    values_BFT: Tensor
    sounding: tuple[int, ...]
    padded: bool

    def of(self, number: int) -> Tensor:
        """One window's, (1, F, T): without what is there for other windows' sake."""
        one_1FT = self.values_BFT[number : number + 1]
        return one_1FT if self.padded else one_1FT[..., : self.sounding[number]]


def features_of(windows: Sequence[Samples], info: ModelInfo) -> Features:
    """On the model's device."""
    if info.features == "waveform":
        return _waveforms(windows, info)
    return Features(
        log_mel(windows, info.num_mels, info.device),
        tuple(len(samples) * info.num_frames // WINDOW_SAMPLES for samples in windows),
        padded=True,
    )


def _waveforms(windows: Sequence[Samples], info: ModelInfo) -> Features:
    lengths = tuple(min(len(samples), WINDOW_SAMPLES) for samples in windows)
    waves_BS = np.zeros((len(windows), max(lengths, default=0)), np.float32)
    for row, samples, length in zip(waves_BS, windows, lengths, strict=True):
        row[:length] = samples[:length]
    waves_B1S = sent(torch.from_numpy(waves_BS)[:, None], torch.device(info.device))
    return Features(waves_B1S, lengths, padded=False)
