"""Windows of sound of different lengths, and what a model says of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from service.families.ctc import CtcModel
from service.profiles import Profile
from service.types import DecodeOptions, Encoded, Hypothesis
from tests.windows import finish


def sounds(*lengths: int, seed: int = 0) -> Tensor:
    """(B, 1, S): noise whose loudness and colour change, zeros behind each window's samples."""
    source = torch.Generator().manual_seed(seed)
    waves_B1S = torch.zeros(len(lengths), 1, max(lengths))
    for wave_1S, length in zip(waves_B1S, lengths, strict=True):
        white_S = torch.randn(length, generator=source)
        swell_S = 1 + torch.sin(torch.arange(length) / (1500 + 500 * float(white_S[0])))
        wave_1S[0, :length] = 0.1 * swell_S * (white_S + white_S.roll(1) * swell_S)
    return waves_B1S


def said(
    model: CtcModel, encoded: Sequence[Encoded], options: DecodeOptions | None = None
) -> list[Hypothesis]:
    batch = model.new_decode_batch()
    batch.join(range(len(encoded)), encoded, [options or DecodeOptions()] * len(encoded))
    return finish(batch, len(encoded))


def encode_one(model: CtcModel, wave_S: Tensor, profile: Profile) -> Encoded:
    return model.encode(wave_S[None, None], [profile])[0]


def text_of(model: CtcModel, hypothesis: Hypothesis) -> str:
    return "".join(piece.text for piece in model.split_text(hypothesis.tokens))
