"""Which heads of a checkpoint look at what is being said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import CheckpointError
from service.model.weights import Dims

Head = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a checkpoint is asked when its words were said.

    `heads`: (decoder layer, head) whose cross-attention follows the speech.
    """

    heads: tuple[Head, ...]


def read_alignment(settings: Mapping[str, Any], dims: Dims) -> Alignment:
    """`alignment_heads` of a generation config.

    Without heads, all of the upper half of decoder layers, as openai-whisper has it. Raises
    CheckpointError for heads that the decoder does not have.
    """
    stated = settings.get("alignment_heads")
    if stated is None:
        layers = range(dims.decoder_layers // 2, dims.decoder_layers)
        heads = tuple((layer, head) for layer in layers for head in range(dims.decoder_heads))
        return Alignment(heads)
    try:
        heads = tuple((int(layer), int(head)) for layer, head in stated)
    except (TypeError, ValueError, OverflowError):
        heads = ()
    if not heads or not all(
        0 <= layer < dims.decoder_layers and 0 <= head < dims.decoder_heads for layer, head in heads
    ):
        raise CheckpointError(
            f"alignment_heads must be [layer, head] pairs of a decoder with {dims.decoder_layers} "
            f"layers of {dims.decoder_heads} heads"
        )
    return Alignment(heads)
