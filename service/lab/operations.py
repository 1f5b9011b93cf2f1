"""Multiplications and additions of Whisper's parts: arithmetic, whatever computes them and how."""

from __future__ import annotations

from service.model.weights import Dims

MEL_FRAMES = 2  # of one of the encoder's
STEM_REACH = 3  # frames that a convolution reads for one
# Weights that a row is multiplied with in one layer, in squares of the model's width: query, key,
# value and out; query and out of attention across; the feed-forward half. And those that a frame
# is, for the decoder's attention across: key and value.
ATTENTION, ACROSS, FEED, KEYS = 4, 2, 8, 2
ENCODER_LAYER, DECODER_LAYER = ATTENTION + FEED, ATTENTION + ACROSS + FEED


def stem(dims: Dims, frames: float) -> float:
    """Both convolutions, for so many of the encoder's frames."""
    return 2 * STEM_REACH * dims.d_model * frames * (MEL_FRAMES * dims.num_mels + dims.d_model)


def products(dims: Dims, rows: float, squares: float) -> float:
    """Of rows with weights, these in squares of the width."""
    return 2 * rows * squares * dims.d_model**2


def attention(dims: Dims, queries: float, keys: float) -> float:
    """What queries read of keys and values, in one layer: logits and sums."""
    return 4 * queries * keys * dims.d_model


def logits(dims: Dims, tokens: float) -> float:
    return 2 * tokens * dims.d_model * dims.vocab_size
