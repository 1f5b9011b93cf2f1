"""What is held of a window in decode, in bytes: what the budget of the engine counts."""

from __future__ import annotations

from service.decode.kept import FRAMES
from service.model.weights import DecoderWeights


def row_bytes(weights: DecoderWeights, num_tokens: int) -> int:
    """Of a row that holds so many tokens."""
    width, size = weights.positions_TD.shape[1], weights.positions_TD.element_size()
    return 2 * len(weights.layers) * width * num_tokens * size


def frame_bytes(weights: DecoderWeights) -> int:
    """Of a frame of one window: its state, and keys and values of every layer."""
    width = weights.positions_TD.shape[1]
    keys = width * weights.cross.row_bytes(FRAMES) // FRAMES
    values = weights.heads * weights.cross.row_bytes(width // weights.heads)
    state = width * weights.positions_TD.element_size()
    return len(weights.layers) * (keys + values) + state
