"""Tokens to timestamped pieces of text, whatever a token means."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from service.types import Piece


def split(
    tokens: Iterable[int], time_of: Callable[[int], float | None], text_of: Callable[[int], str]
) -> list[Piece]:
    """The pieces of a hypothesis, each with its own tokens.

    `time_of`: the seconds that a timestamp says; None: it is none. A timestamp after text closes a
    piece, any other opens one. Tokens after the last text make no piece.
    """
    pieces: list[Piece] = []
    start_s: float | None = None
    text = ""
    own: list[int] = []
    for token in tokens:
        own.append(token)
        time_s = time_of(token)
        if time_s is None:
            text += text_of(token)
        elif text:
            pieces.append(Piece(start_s, time_s, text, tuple(own)))
            start_s, text, own = None, "", []
        else:
            start_s = time_s
    if text:
        pieces.append(Piece(start_s, None, text, tuple(own)))
    return pieces
