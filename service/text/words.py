"""A window's words -> the segments they belong to, on the recording's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from service.text.timestamps import lay_out
from service.types import Piece, Word


def by_piece(words: Sequence[Word], pieces: Sequence[Piece]) -> list[tuple[Word, ...]]:
    """The words of each piece with text. Words and pieces are of one text, cut differently."""
    ends = list(accumulate(len(piece.text) for piece in pieces))
    own: list[list[Word]] = [[] for _ in pieces]
    at = number = 0
    for word in words:
        while number + 1 < len(pieces) and at >= ends[number]:
            number += 1
        if word.text.strip() and own:
            own[number].append(word)
        at += len(word.text)
    return [tuple(some) for some, piece in zip(own, pieces, strict=True) if piece.text.strip()]


def place(
    words: Sequence[Word], window_start: float, start: float, end: float, space: str = ""
) -> tuple[Word, ...]:
    """Words on the recording's clock, in order and inside their segment's [`start`, `end`], each
    with a length.

    Where the model's attention and its timestamps agree on no word of a segment, the words share
    the segment evenly. `space` goes before the first, as it does before the segment's text.
    """
    placed: list[Word] = []
    latest = start
    for word in words:
        begins = min(max(window_start + word.start, latest), end)
        latest = min(max(window_start + word.end, begins), end)
        text = word.text if placed else space + word.text
        placed.append(replace(word, text=text, start=begins, end=latest))
    if any(word.end > word.start for word in placed):
        spans = lay_out([(word.start, word.end) for word in placed], start, end)
        return tuple(
            replace(word, start=begins, end=ends)
            for word, (begins, ends) in zip(placed, spans, strict=True)
        )
    share = (end - start) / max(1, len(placed))
    return tuple(
        replace(word, start=start + i * share, end=min(start + (i + 1) * share, end))
        for i, word in enumerate(placed)
    )
