"""What a profile's answers cost to compute: arithmetic, the same on every machine and in every run.

Candidates are compared by it while there are many: a clock would choose others every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.families.whisper import Whisper
from service.lab import operations as ops
from service.lab.search.trials import Trial
from service.model.operators.factors import num_weights
from service.model.protocol import SpeechModel
from service.model.weights import Dims, products_of
from service.profiles import Profile
from service.requests.guard import UNFINISHED

# The fake model has no weights: tiny's shape.
FAKE = Dims(80, 1500, 384, 6, 6, 4, 4, 51865, 448)
# A step multiplies few rows with all of the weights: it waits for them. Measured beside the
# encoder's products, whose rows are many (python -m bench.stages).
STEP = 3


def dims_of(model: SpeechModel) -> Dims:
    return model.checkpoint.weights.dims if isinstance(model, Whisper) else FAKE


@dataclass(frozen=True, slots=True)
class Window:
    """Frames that the layers up to the profile's see, those after it, and the decoder."""

    before: float
    after: float
    kept: float


def window_of(profile: Profile, kept: float, num_frames: int) -> Window:
    """What a window of `num_frames` goes through, of which the decoder saw `kept`, in the mean.

    What was kept is known from the answers, so that it holds for whatever decides by the audio.
    """
    after = min(num_frames, kept / (1 - profile.late))
    before = float(num_frames)
    if profile.padding:
        thinned = profile.sparsity if isinstance(profile.sparsity, int | float) else 0.0
        before = min(before, after / (1 - thinned))
    return Window(before, after, kept)


def shares_of(model: SpeechModel, profile: Profile) -> tuple[float, ...]:
    """By encoder layer: what its products multiply under the profile, of what the model's do."""
    if not isinstance(model, Whisper):
        return (1.0,) * FAKE.encoder_layers
    whole = ops.ENCODER_LAYER * model.checkpoint.weights.dims.d_model**2
    return tuple(
        sum(map(num_weights, products_of(layer))) / whole
        for layer in model.encoder_of(profile).layers
    )


def operations(
    dims: Dims, profile: Profile, trials: Iterable[Trial], shares: Sequence[float] | None = None
) -> float:
    """Multiplications and additions of all the answers, attempts after the first among them.

    `shares`: as `shares_of` has them, None: all of them. Gates are taken to run as many modules as
    they were trained to.
    """
    shares = (1.0,) * dims.encoder_layers if shares is None else shares
    return sum(_operations(dims, profile, trial, shares) for trial in trials)


def _operations(dims: Dims, profile: Profile, trial: Trial, shares: Sequence[float]) -> float:
    windows = trial.total_frames / dims.num_frames
    if not windows:
        return 0.0
    window = window_of(profile, trial.kept_frames / windows, dims.num_frames)
    # Where a text ends early it is gone on with, in windows that are counted; any other attempt
    # reads every frame.
    again = sum(num for reason, num in trial.outcome.again.items() if reason != UNFINISHED)
    every = Window(*[float(dims.num_frames)] * 3)
    return (
        windows * encoding(dims, profile, window, shares)
        + again * encoding(dims, Profile("dense"), every, (1.0,) * dims.encoder_layers)
        + trial.tokens * STEP * _step(dims, window.kept, 1 - profile.gates)
    )


def encoding(dims: Dims, profile: Profile, window: Window, shares: Sequence[float]) -> float:
    """Stem, layers, and the decoder's keys and values of what is left."""
    frames, before = window.before, dims.encoder_layers
    if profile.sparsity:
        before = min(before, profile.layer)
    elif profile.padding:
        before = 0
    scored = profile.sparsity and profile.pool == "drop" and profile.selection == "attention"
    layers = sum(_layer(dims, frames, share) for share in shares[:before])
    layers += sum(_layer(dims, window.after, share) for share in shares[before:])
    return (
        ops.stem(dims, frames)
        + (1 - profile.gates) * layers
        + (ops.attention(dims, frames, frames) if scored else 0)  # once more, its weights kept
        + dims.decoder_layers * ops.products(dims, window.kept, ops.KEYS)
    )


def _layer(dims: Dims, frames: float, share: float) -> float:
    products = ops.products(dims, frames, ops.ENCODER_LAYER * share)
    return products + ops.attention(dims, frames, frames)


def _step(dims: Dims, kept: float, run: float) -> float:
    layer = ops.products(dims, 1, ops.DECODER_LAYER) + ops.attention(dims, 1, kept)
    return run * dims.decoder_layers * layer + ops.logits(dims, 1)
