"""How likely each 32 ms of a recording is speech: Silero VAD's network, run over many at once.

The network is Silero VAD 6.2 (MIT; weights and licence in `assets/silero_vad`). Its callers
usually feed it one 32 ms chunk at a time. Only its LSTM depends on what came before, so here the
convolutions see hundreds of chunks in one product and the LSTM walks over their results. The
probabilities are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from service.types import Samples

Probabilities = npt.NDArray[np.float32]

CHUNK_SAMPLES = 512
_CONTEXT_SAMPLES = 64  # the end of the chunk before, which the network sees as well
_STFT_SAMPLES, _STFT_HOP, _STFT_FRAMES, _STFT_BINS = 256, 128, 4, 129
_STRIDES = (1, 2, 2, 1)
_NUM_HIDDEN = 128
_LEAD_IN_CHUNKS = 16  # half a second of silence in front; see led_in
_BLOCK_CHUNKS = 512  # 16 s at a time: intermediate results stay in cache, memory stays bounded
# Lengths are rounded up to a second: torch keeps what it has prepared for each length it has seen,
# 70 MB for six hundred of them.
_ROUND_CHUNKS = 32


@dataclass(frozen=True, slots=True)
class _Conv:
    """A convolution of width 3 and padding 1, as a product. weight: (3 * in, out)."""

    weight: Tensor
    bias: Tensor
    stride: int


@dataclass(frozen=True, slots=True)
class _Network:
    """Spectrum, four convolutions, LSTM, one output. `stft`: (256, 258)."""

    stft: Tensor
    convs: tuple[_Conv, ...]
    lstm: torch.nn.LSTM
    out_weight: Tensor
    out_bias: Tensor


@dataclass(frozen=True, slots=True)
class VadState:
    """What the network remembers: the last 64 samples, and its LSTM's output and cell (1, 128)."""

    context: Samples
    output: Tensor
    cell: Tensor


def alone() -> None:
    """Has the calling thread compute without others. To be called by each that hears.

    Every thread that asks torch for something has a pool of its own: with the model's beside them
    they would be more than there are processors, and each waits for the others of its pool.
    """
    torch.set_num_threads(1)


@cache
def led_in() -> VadState:
    """The state a recording starts with: after half a second of silence.

    Started cold on a clip that begins with speech the network misses 40 of 500 spoken digits, led
    in it misses 1.
    """
    zeros = torch.zeros(1, _NUM_HIDDEN)
    cold = VadState(np.zeros(_CONTEXT_SAMPLES, np.float32), zeros, zeros)
    return advance(cold, np.zeros(_LEAD_IN_CHUNKS * CHUNK_SAMPLES, np.float32))[0]


def advance(state: VadState, samples: Samples) -> tuple[VadState, Probabilities]:
    """The state after these samples, and the probability of speech in each chunk of them.

    `samples`: whole chunks of 512 at 16 kHz, at least one. However a recording is cut into calls,
    its probabilities are the same to rounding.
    """
    network = _network()
    with torch.inference_mode():
        known = torch.from_numpy(np.concatenate([state.context, samples]))
        chunks = known.unfold(0, _CONTEXT_SAMPLES + CHUNK_SAMPLES, CHUNK_SAMPLES)
        features_TD = _encode(network, F.pad(chunks, (0, _CONTEXT_SAMPLES), mode="reflect"))
        hidden_TD, (output, cell) = network.lstm(features_TD, (state.output, state.cell))
        logits_T = hidden_TD.relu() @ network.out_weight + network.out_bias
        probabilities: Probabilities = logits_T.sigmoid().numpy()
    return VadState(samples[-_CONTEXT_SAMPLES:].copy(), output, cell), probabilities


def speech_probabilities(samples: Samples) -> Probabilities:
    """Probability of speech in each 512-sample (32 ms) chunk of 16 kHz audio.

    Returns one value in [0, 1] per chunk, the last of which may be partly filled. The network's
    state runs through the whole recording.
    """
    block = _BLOCK_CHUNKS * CHUNK_SAMPLES
    state, found = led_in(), [np.empty(0, np.float32)]
    for at in range(0, len(samples), block):
        part = samples[at : at + block]
        num_chunks = -(-len(part) // CHUNK_SAMPLES)
        if missing := -len(part) % (_ROUND_CHUNKS * CHUNK_SAMPLES):
            part = np.pad(part, (0, missing))
        state, probabilities = advance(state, part)
        found.append(probabilities[:num_chunks])
    return np.concatenate(found)


def _encode(network: _Network, chunks: Tensor) -> Tensor:
    """(N, 640) samples -> (N, 128) features of each chunk by itself."""
    frames = chunks.unfold(1, _STFT_SAMPLES, _STFT_HOP).reshape(-1, _STFT_SAMPLES)
    spectrum = frames @ network.stft
    magnitude = torch.hypot(spectrum[:, :_STFT_BINS], spectrum[:, _STFT_BINS:])
    x = magnitude.view(len(chunks), _STFT_FRAMES, _STFT_BINS)
    for conv in network.convs:
        x = F.pad(x, (0, 0, 1, 1))
        steps = range(0, x.shape[1] - 2, conv.stride)
        columns = torch.stack([x[:, at : at + 3].flatten(1) for at in steps], 1)
        x = (columns @ conv.weight).add_(conv.bias).relu_()
    return x.squeeze(1)


@cache
def _network() -> _Network:
    asset = files("service") / "assets" / "silero_vad" / "silero_vad_16k.safetensors"
    with as_file(asset) as path:
        weights = load_file(path)
    lstm = torch.nn.LSTM(_NUM_HIDDEN, _NUM_HIDDEN)
    parts = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    lstm.load_state_dict({part: weights[f"lstm.{part}"] for part in parts})
    return _Network(
        stft=weights["stft.weight"][:, 0].T.contiguous(),
        convs=tuple(
            _Conv(_as_product(weights[f"conv{i}.weight"]), weights[f"conv{i}.bias"], stride)
            for i, stride in enumerate(_STRIDES, start=1)
        ),
        lstm=lstm.eval().requires_grad_(False),
        out_weight=weights["out.weight"][0, :, 0],
        out_bias=weights["out.bias"],
    )


def _as_product(weight: Tensor) -> Tensor:
    """(out, in, 3) -> (3 * in, out)."""
    return weight.permute(2, 1, 0).flatten(0, 1).contiguous()
