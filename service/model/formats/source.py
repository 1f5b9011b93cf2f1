"""A model as some place holds it: what every format gives, and all that `checkpoint` asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from service.model.weights import Dims


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A model that is not on a device yet.

    `place` is where it is, for messages, and `said_by` what there told its dimensions. `ids` maps
    token strings, in the byte-level alphabet, to ids; `settings` has what there is of
    transformers' configs, by their names (`suppress_tokens`, `alignment_heads`, ...); `tokenizer`
    is None where nothing says how text is split. `tensors` gives every parameter under
    transformers' name, one at a time, in the type that is stored; it raises CheckpointError for
    what cannot be read.
    """

    place: str
    said_by: str
    dims: Dims
    ids: Mapping[str, int]
    settings: Mapping[str, Any]
    tokenizer: Tokenizer | None
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]
