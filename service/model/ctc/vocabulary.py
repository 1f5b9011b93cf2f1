"""The symbols of a CTC model: which is the blank, which parts words, what the others spell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.model import pieces
from service.types import Piece


@dataclass(frozen=True, slots=True, eq=False)
class CtcVocabulary:
    """`texts[id]`: what a symbol spells, "" for one that spells nothing.

    `blank` says nothing and parts a symbol from itself; `delimiter` parts words. Ids from `size`
    on are times, `frame_s` seconds apart: a model has none, and here they carry a hypothesis' times
    among its tokens, as Whisper's do.
    """

    texts: tuple[str, ...]
    blank: int
    delimiter: int
    frame_s: float

    @property
    def size(self) -> int:
        return len(self.texts)

    def text(self, token: int) -> str:
        """ "" for a time, as for what spells nothing."""
        return self.texts[token] if 0 <= token < self.size else ""

    def token_bytes(self, token: int) -> bytes:
        return self.text(token).encode()

    def split_text(self, tokens: Sequence[int]) -> list[Piece]:
        """The timestamped pieces of a hypothesis (`pieces.split`)."""
        return pieces.split(tokens, self._time_of, self.text)

    def _time_of(self, token: int) -> float | None:
        return round((token - self.size) * self.frame_s, 3) if token >= self.size else None
