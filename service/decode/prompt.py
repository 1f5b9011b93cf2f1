"""What windows are given before they speak: a prompt, and their language where nobody said it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from service.decode.language import language_probs
from service.decode.rows import WindowState
from service.model import decoder
from service.model.cache import Cache
from service.model.tokens import Vocabulary
from service.model.weights import DecoderWeights


@dataclass(frozen=True, slots=True, eq=False)
class PromptReader:
    """Reads for windows that have just joined, in the cache's rows from `first_row` on. Those of a
    call are given equally much, but for its words."""

    weights: DecoderWeights
    vocabulary: Vocabulary
    cache: Cache

    def hear_language(self, states: Sequence[WindowState], first_row: int) -> None:
        """Detects the language where nobody said it, after start-of-transcript alone."""
        wish = states[0].options
        unknown = wish.language is None and self.vocabulary.multilingual
        if not unknown and not wish.language_only:
            return
        start_BV = self._read([[self.vocabulary.sot]] * len(states), first_row, [0])[:, 0]
        self._note_silence(states, start_BV)
        among = [state.options.languages for state in states]
        heard = language_probs(self.vocabulary, start_BV, among)
        for state, probs in zip(states, heard, strict=True):
            state.language_probs = probs
            state.options = replace(state.options, language=probs[0][0])

    def read(self, states: Sequence[WindowState], first_row: int) -> Tensor:
        """The logits (B, V) of the first token that each window may choose."""
        prompts = [self.vocabulary.prompt(state.options) for state in states]
        start = prompts[0].index(self.vocabulary.sot)
        if start:
            self.cache.rewind(first_row)
        if self.cache.lengths[first_row]:
            return self._read([prompt[1:] for prompt in prompts], first_row, [-1])[:, 0]
        logits_BNV = self._read(prompts, first_row, [start, -1])
        self._note_silence(states, logits_BNV[:, 0])
        return logits_BNV[:, 1]

    def _read(
        self, tokens: Sequence[Sequence[int]], first_row: int, wanted: Sequence[int]
    ) -> Tensor:
        tokens_BN = torch.tensor(tokens, device=self.weights.embedding_VD.device)
        return decoder.step(self.weights, tokens_BN, self.cache, first_row, wanted)

    def _note_silence(self, states: Sequence[WindowState], start_BV: Tensor) -> None:
        if self.vocabulary.no_speech is None:
            return
        silent_B = start_BV.softmax(-1)[:, self.vocabulary.no_speech].tolist()
        for state, probability in zip(states, silent_B, strict=True):
            state.no_speech_prob = probability
