"""What a training window is read as: characters for the CTC branch, tokens for the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from service.lab.sources import NOWHERE, Span, Utterance
from service.lab.vocabulary import TIMESTAMPS, token_id

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHARACTERS = "abcdefghijklmnopqrstuvwxyz' "
IGNORE = -100
FRAME_S = 0.02


def to_characters(text: str) -> list[int]:
    """CTC labels of a text: 1-based positions in CHARACTERS; 0 is the blank."""
    return [CHARACTERS.index(c) + 1 for c in text.lower() if c in CHARACTERS]


class TargetTokens:
    """Whisper's decoder sequences: task tokens, then text with or without timestamps."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.language, self.task = token_id(tokenizer, "en"), token_id(tokenizer, "transcribe")
        self.start, self.end = (
            token_id(tokenizer, "startoftranscript"),
            token_id(tokenizer, "endoftext"),
        )
        self.no_speech, self.plain = (
            token_id(tokenizer, "nospeech"),
            token_id(tokenizer, "notimestamps"),
        )
        self.zero = token_id(tokenizer, "0.00")

    def of(
        self, example: Utterance, rng: np.random.Generator
    ) -> tuple[list[int], list[int], list[Span]]:
        """Inputs, targets, and the words' spans in the places of their targets.

        With timestamps every phrase is a segment: for digits that is a word, whose time tells
        the decoder where it is, and no string is long enough to get lost in. A window without
        speech is `nospeech` at the first position.
        """
        timed = rng.random() < 0.92
        sequence = [self.start, self.language, self.task]
        if not timed:
            sequence.append(self.plain)
        elif not example.phrases:
            sequence.append(self.zero)
        spans: list[Span] = [NOWHERE] * (len(sequence) - 1)
        for phrase in example.phrases:
            begin, end = ([self._time(at)] if timed else [] for at in (phrase.start, phrase.end))
            sequence += begin
            spans += [NOWHERE] * len(begin)
            for word, span in zip(phrase.words, phrase.spans, strict=True):
                tokens = self.tokenizer.encode(" " + word).ids
                sequence += tokens
                spans += [span] * len(tokens)
            sequence += end
            spans += [NOWHERE] * len(end)
        targets = [*sequence[1:], self.end]
        if not example.phrases:
            targets[0] = self.no_speech
        return sequence, targets, [*spans, NOWHERE]

    def _time(self, seconds: float) -> int:
        return self.zero + min(round(seconds * 50), len(TIMESTAMPS) - 1)

    def pad(
        self, rows: list[tuple[list[int], list[int], list[Span]]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        longest = max(len(inputs) for inputs, _, _ in rows)
        inputs = [row + [self.end] * (longest - len(row)) for row, _, _ in rows]
        targets = [row + [IGNORE] * (longest - len(row)) for _, row, _ in rows]
        spans = [row + [NOWHERE] * (longest - len(row)) for _, _, row in rows]
        return torch.tensor(inputs), torch.tensor(targets), torch.tensor(spans, dtype=torch.float32)
