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

CHUNK_SAMPLES = 512
_CONTEXT_SAMPLES = 64  # the end of the chunk before, which the network sees as well
_STFT_SAMPLES, _STFT_HOP, _STFT_FRAMES, _STFT_BINS = 256, 128, 4, 129
_STRIDES = (1, 2, 2, 1)
_LEAD_IN_CHUNKS = 16  # half a second of silence in front; see speech_probabilities
_BLOCK_CHUNKS = 512  # 16 s at a time: intermediate results stay in cache, memory stays bounded


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


def speech_probabilities(samples: Samples) -> npt.NDArray[np.float32]:
    """Probability of speech in each 512-sample (32 ms) chunk of 16 kHz audio.

    Returns one value in [0, 1] per chunk, the last of which may be partly filled. The network's
    state runs through the whole recording. It is led in by half a second of silence: started
    cold on a clip that begins with speech it misses 40 of 500 spoken digits, led in it misses 1.
    """
    num_chunks = -(-len(samples) // CHUNK_SAMPLES)
    probabilities = np.empty(_LEAD_IN_CHUNKS + num_chunks, np.float32)
    network, state = _network(), None
    for first in range(-_LEAD_IN_CHUNKS, num_chunks, _BLOCK_CHUNKS):
        last = min(num_chunks, first + _BLOCK_CHUNKS)
        with torch.inference_mode():
            chunks = _with_context(samples, first, last)
            features_TD = _encode(network, chunks)
            hidden_TD, state = network.lstm(features_TD, state)
            logits_T = hidden_TD.relu() @ network.out_weight + network.out_bias
            filled = slice(_LEAD_IN_CHUNKS + first, _LEAD_IN_CHUNKS + last)
            probabilities[filled] = logits_T.sigmoid().numpy()
    return probabilities[_LEAD_IN_CHUNKS:]


def _with_context(samples: Samples, first: int, last: int) -> Tensor:
    """Chunks `first` to `last` with 64 samples before each and 64 mirrored after: (N, 640)."""
    start = first * CHUNK_SAMPLES - _CONTEXT_SAMPLES
    stop = last * CHUNK_SAMPLES
    part = samples[max(0, start) : stop]
    padded = np.zeros(stop - start, np.float32)
    padded[max(0, -start) : max(0, -start) + len(part)] = part
    chunks = torch.from_numpy(padded).unfold(0, _CONTEXT_SAMPLES + CHUNK_SAMPLES, CHUNK_SAMPLES)
    return F.pad(chunks, (0, _CONTEXT_SAMPLES), mode="reflect")


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
    lstm = torch.nn.LSTM(128, 128)
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
