"""A model as some place holds it: what every format gives, and all that `checkpoint` asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from service.errors import CheckpointError
from service.model.weights import Dims

# By model_type, encoders whose frames say their own symbols (`ctc`).
CTC_KINDS = ("wav2vec2", "hubert", "wav2vec2-conformer")


class CtcFolderError(CheckpointError):
    """A folder that holds a CTC model, where one of Whisper's was asked for."""

    def __init__(self, folder: Path, kind: str) -> None:
        super().__init__(f"{folder}: model_type is {kind!r}, a CTC model; this is for Whisper's")
        self.folder = folder


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
