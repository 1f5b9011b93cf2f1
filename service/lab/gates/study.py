"""What gates decide, what that saves, and what it costs in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from service.families.whisper import Whisper
from service.lab import operations as ops
from service.lab.outcomes import Figures
from service.model.checkpoint import Checkpoint
from service.model.gates import DECODER_MODULES, ENCODER_MODULES, Gates
from service.model.weights import Dims
from service.profiles import Profile
from service.types import Encoded, OpenModules

TOKENS = 110  # that a full window of English has, with its timestamps
ENCODER_NAMES, DECODER_NAMES = ("attention", "MLP"), ("attention", "cross-attention", "MLP")


class Gated(Whisper):
    """A model whose profiles of some names have gates; it remembers what these decided."""

    def __init__(self, checkpoint: Checkpoint, by_name: Mapping[str, Gates]) -> None:
        super().__init__(checkpoint, dict(enumerate(by_name.values())))
        self._by_name = dict(zip(by_name, self.gates.values(), strict=True))
        self.decided: dict[str, list[OpenModules]] = {name: [] for name in by_name}

    def _gates_of(self, profile: Profile) -> Gates | None:
        return self._by_name.get(profile.name)

    def encode(
        self,
        mel_BFT: torch.Tensor,
        profiles: Sequence[Profile],
        audio_frames: Sequence[int] | None = None,
    ) -> list[Encoded]:
        encoded = super().encode(mel_BFT, profiles, audio_frames)
        for profile, window in zip(profiles, encoded, strict=True):
            if window.gates is not None:
                self.decided[profile.name].append(window.gates)
        return encoded


@dataclass(frozen=True, slots=True)
class Decisions:
    """What gates decided of so many windows.

    `share_off`: of the modules, in the mean; `saved`: of a window's operations, and `saved_encoder`
    of the encoder's; `patterns`: how many different decisions there were; `varying`: how many
    modules run for some windows and not for others; `differ`: in what share of the modules two
    windows differ, in the mean; `runs`: for each module, in what share of the windows it runs.
    """

    windows: int
    share_off: float
    saved: float
    saved_encoder: float
    patterns: int
    varying: int
    differ: float
    runs: Mapping[str, float]


def decisions(dims: Dims, found: Sequence[OpenModules]) -> Decisions:
    runs_WM = torch.tensor([_flat(one) for one in found]).double()
    share_M = runs_WM.mean(0)
    costs_M = torch.tensor(module_operations(dims), dtype=torch.float64)
    fixed, fixed_encoder = other_operations(dims)
    num_encoder = ENCODER_MODULES * dims.encoder_layers
    off_M = (1 - share_M) * costs_M
    pairs = len(found) / max(1, len(found) - 1)
    return Decisions(
        windows=len(found),
        share_off=float(1 - share_M.mean()),
        saved=float(off_M.sum() / (costs_M.sum() + fixed)),
        saved_encoder=float(
            off_M[:num_encoder].sum() / (costs_M[:num_encoder].sum() + fixed_encoder)
        ),
        patterns=len(set(found)),
        varying=int(((share_M > 0) & (share_M < 1)).sum()),
        differ=float((2 * share_M * (1 - share_M)).mean()) * pairs,
        runs=dict(zip(module_names(dims), share_M.tolist(), strict=True)),
    )


def _flat(modules: OpenModules) -> list[bool]:
    return [one for layer in (*modules.encoder, *modules.decoder) for one in layer]


def module_names(dims: Dims) -> list[str]:
    return [
        f"{side} {number} {name}"
        for side, layers, names in (
            ("encoder", dims.encoder_layers, ENCODER_NAMES),
            ("decoder", dims.decoder_layers, DECODER_NAMES),
        )
        for number in range(1, layers + 1)
        for name in names
    ]


def module_operations(dims: Dims, tokens: int = TOKENS) -> list[float]:
    """Multiplications and additions of each module for a window of `tokens`."""
    frames = dims.num_frames
    encoder = [
        ops.products(dims, frames, ops.ATTENTION) + ops.attention(dims, frames, frames),
        ops.products(dims, frames, ops.FEED),
    ]
    across = ops.products(dims, tokens, ops.ACROSS) + ops.attention(dims, tokens, frames)
    decoder = [
        # Each token sees half of them, in the mean.
        ops.products(dims, tokens, ops.ATTENTION) + ops.attention(dims, tokens, tokens / 2),
        across + ops.products(dims, frames, ops.KEYS),
        ops.products(dims, tokens, ops.FEED),
    ]
    assert (len(encoder), len(decoder)) == (ENCODER_MODULES, DECODER_MODULES)
    return encoder * dims.encoder_layers + decoder * dims.decoder_layers


def other_operations(dims: Dims, tokens: int = TOKENS) -> tuple[float, float]:
    """Of what has no gate: the stem and the logits; and the stem alone."""
    stem = ops.stem(dims, dims.num_frames)
    return stem + ops.logits(dims, tokens), stem


def line(name: str, figures: Figures, found: Decisions | None) -> str:
    """A row of a Markdown table, under `HEAD`."""
    wer, difference = figures.wer, figures.difference
    cells = [name, f"{100 * wer.value:.2f} ({100 * wer.low:.2f} to {100 * wer.high:.2f})"]
    cells.append(
        ""
        if difference is None
        else f"{100 * difference.value:+.2f} ({100 * difference.low:+.2f} to "
        f"{100 * difference.high:+.2f})"
    )
    if found is None:
        cells += [""] * 5
    else:
        cells += [
            f"{found.share_off:.1%}",
            f"{found.saved:.1%}",
            f"{found.saved_encoder:.1%}",
            f"{found.varying} of {len(found.runs)}",
            f"{found.patterns} in {found.windows}",
        ]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| gates | WER | to dense | modules off | operations saved | of the encoder's | "
    "modules that vary | different decisions |\n|---|---|---|---|---|---|---|---|"
)


def to_json(figures: Sequence[Figures], found: Mapping[str, Decisions]) -> list[dict[str, Any]]:
    return [
        {
            "gates": one.profile,
            "wer": asdict(one.wer),
            "difference": None if one.difference is None else asdict(one.difference),
            "again": dict(one.again),
            "decisions": asdict(found[one.profile]) if one.profile in found else None,
        }
        for one in figures
    ]
