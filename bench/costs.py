"""What each stage should cost: its operations over the rate of matrix products, and its bytes over
the rate of copies, both as measured on the machine; the larger of the two."""

from __future__ import annotations

from dataclasses import dataclass

from service.lab import operations as ops
from service.model.weights import Dims
from service.profiles import Profile

MEL_FRAMES, SPECTRUM = 3000, 201  # of a window of 30 s, and values of a frame's Fourier transform
FLOAT = 4  # bytes


@dataclass(frozen=True, slots=True)
class Rates:
    """Operations and bytes a second."""

    matrix: float
    copy: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations and bytes. Bytes that stay in a cache are left out."""

    flops: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def times(self, number: float) -> Cost:
        return Cost(self.flops * number, self.bytes * number)

    def seconds(self, rates: Rates) -> float:
        return max(self.flops / rates.matrix, self.bytes / rates.copy)

    def bound(self, rates: Rates) -> str:
        """Which of the two it waits for."""
        return "products" if self.flops / rates.matrix > self.bytes / rates.copy else "bytes"


@dataclass(frozen=True, slots=True)
class Work:
    """What is measured: `windows` together, each reading `kept` of its frames and saying `tokens`
    after a prompt. `weight`, `state` and `cross`: bytes of a weight, of a value computed, and of a
    value of cross-attention's keys and values."""

    dims: Dims
    profile: Profile
    windows: int
    kept: int
    prompt: int
    tokens: int
    weight: int
    state: int
    cross: float

    @property
    def context(self) -> int:
        """Tokens that a step reads, halfway."""
        return self.prompt + self.tokens // 2


def stages(work: Work) -> dict[str, Cost]:
    """Of the whole batch of windows, by the names that `bench.stages.measure` has."""
    dims, rows = work.dims, work.windows
    frames, width, vocab = dims.num_frames, dims.d_model, dims.vocab_size
    before = dims.encoder_layers if work.profile.sparsity == 0 else work.profile.layer
    after = dims.encoder_layers - before
    logits = Cost(0, rows * vocab * FLOAT)
    pieces = step(work)
    prefill = _read(work, work.prompt) + pieces["logits"]
    return {
        "mel": Cost(0, rows * MEL_FRAMES * (2 * 2 * SPECTRUM + dims.num_mels) * FLOAT),
        "stem": Cost(
            rows * ops.stem(dims, frames),
            rows * (MEL_FRAMES + frames) * width * work.state,
        ),
        "layers before": _encoder_layer(work, frames).times(before),
        "thinning": _thinning(work),
        "layers after": _encoder_layer(work, work.kept).times(after),
        "cross keys": _cross_keys(work),
        "prefill": prefill,
        "steps": _sum(*pieces.values()).times(work.tokens),
        "rules": logits.times(2 * work.tokens),
        "choice": logits.times(work.tokens),
        "words": _read(work, work.prompt + work.tokens)
        + pieces["logits"].times(work.tokens)
        + _cross_keys(work),
    }


def step(work: Work) -> dict[str, Cost]:
    """Of one step of every window."""
    dims, rows = work.dims, work.windows
    width, layers = dims.d_model, dims.decoder_layers
    return {
        "products": _product(work, rows, ops.DECODER_LAYER * width**2 * layers),
        "self keys and values": _attention(work, rows, work.context, work.state),
        "cross keys and values": _attention(work, rows, work.kept, work.cross),
        "logits": _product(work, rows, dims.vocab_size * width),
    }


def _encoder_layer(work: Work, frames: int) -> Cost:
    rows, width = work.windows, work.dims.d_model
    attention = Cost(rows * ops.attention(work.dims, frames, frames), 0)
    # States are read and written by norm, attention, norm and feed-forward.
    states = Cost(0, rows * frames * width * work.state * 4)
    return _product(work, rows * frames, ops.ENCODER_LAYER * width**2) + attention + states


def _thinning(work: Work) -> Cost:
    profile, frames = work.profile, work.dims.num_frames
    if profile.sparsity == 0:
        return Cost(0, 0)
    states = Cost(0, work.windows * (frames + work.kept) * work.dims.d_model * work.state)
    if profile.pool == "drop" and profile.selection == "attention":
        return states + Cost(work.windows * 2 * frames**2 * work.dims.d_model, 0)
    return states


def _cross_keys(work: Work) -> Cost:
    width, layers = work.dims.d_model, work.dims.decoder_layers
    rows = work.windows * work.kept
    written = Cost(0, rows * 2 * width * layers * work.cross)
    return _product(work, rows, ops.KEYS * width**2 * layers) + written


def _read(work: Work, tokens: int) -> Cost:
    """Tokens that are read at once by every window: keys and values are read once for all."""
    width, layers = work.dims.d_model, work.dims.decoder_layers
    attention = _attention(work, work.windows, work.kept, work.cross)
    return _product(work, work.windows * tokens, ops.DECODER_LAYER * width**2 * layers) + Cost(
        attention.flops * tokens, attention.bytes
    )


def _attention(work: Work, rows: int, length: int, each: float) -> Cost:
    """One query a row over keys and values that are read from memory."""
    flops = work.dims.decoder_layers * ops.attention(work.dims, rows, length)
    return Cost(flops, flops / 2 * each)  # each value is multiplied and added


def _product(work: Work, rows: int, parameters: int) -> Cost:
    return Cost(2 * rows * parameters, parameters * work.weight)


def _sum(*costs: Cost) -> Cost:
    total = Cost(0, 0)
    for cost in costs:
        total += cost
    return total
