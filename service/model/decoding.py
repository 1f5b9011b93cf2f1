"""Continuous decoding: windows join and leave the batch at every step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from service.model import decoder, rules
from service.model.alignment import Alignment
from service.model.cache import empty_cache
from service.model.rules import Rules
from service.model.tokens import Vocabulary
from service.model.weights import DecoderWeights
from service.model.words import find_words
from service.types import DecodeOptions, Encoded, Hypothesis, Word


@dataclass(slots=True)
class Row:
    """A window being decoded: what it has said so far. `draws` samples its tokens, if any.

    `encoded` is kept where its words' times will be asked for.
    """

    key: int
    options: DecodeOptions
    prompt: tuple[int, ...]
    kept_frames: int
    total_frames: int
    draws: torch.Generator | None
    encoded: Encoded | None = None
    no_speech_prob: float = 0.0
    sum_logprob: float = 0.0
    tokens: list[int] = field(default_factory=list)


class WindowDecoder:
    """`protocol.DecodeBatch` over a checkpoint's decoder. All state of its windows is here."""

    def __init__(
        self,
        weights: DecoderWeights,
        vocabulary: Vocabulary,
        token_rules: Rules,
        max_tokens: int,
        alignment: Alignment,
    ) -> None:
        self.weights, self.vocabulary, self.rules = weights, vocabulary, token_rules
        self.alignment = alignment
        self.cache = empty_cache(weights, max_tokens)
        # Half the context, as openai-whisper has it: the other half is for a previous text.
        self.token_limit = max_tokens // 2
        self.rows: list[Row] = []
        self.done: dict[int, Hypothesis] = {}

    def __len__(self) -> int:
        return len(self.rows) + len(self.done)

    @torch.inference_mode()
    def join(
        self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
    ) -> None:
        """Adds windows, says which language they are in where nobody did, and their first token."""
        # Rows that share a prompt's length and kept frames are prefilled together.
        groups: dict[tuple[int, int, bool], list[int]] = defaultdict(list)
        for i, (window, wish) in enumerate(zip(encoded, options, strict=True)):
            unknown = wish.language is None and self.vocabulary.multilingual
            groups[len(window.states_TD), int(wish.timestamps), unknown].append(i)
        for (_, _, unknown), members in groups.items():
            wishes = [options[i] for i in members]
            windows = [encoded[i] for i in members]
            self._prefill([keys[i] for i in members], windows, wishes, unknown)

    @torch.inference_mode()
    def step(self) -> dict[int, Hypothesis]:
        """One token for every window; returns, and forgets, those that are done."""
        if self.rows:
            logits_BNV = decoder.step(self.weights, self._latest_tokens(), self.cache)
            self._choose(logits_BNV[:, -1], first_row=0)
        done, self.done = self.done, {}
        return done

    @torch.inference_mode()
    def drop(self, keys: Collection[int]) -> None:
        """Forgets windows whose results nobody waits for."""
        for number in reversed(range(len(self.rows))):
            if self.rows[number].key in keys:
                self._remove(number)
        for key in keys:
            self.done.pop(key, None)

    def _prefill(
        self,
        keys: Sequence[int],
        encoded: Sequence[Encoded],
        options: Sequence[DecodeOptions],
        unknown: bool,
    ) -> None:
        """Reads the prompts; where the language is `unknown`, start-of-transcript first for it."""
        first_row = len(self.rows)
        try:
            decoder.join(
                self.weights, self.cache, torch.stack([window.states_TD for window in encoded])
            )
            if unknown:
                start_BV = self._read([[self.vocabulary.sot]] * len(keys), first_row)[:, 0]
                options = self._detect_languages(start_BV, options)
            prompts = [self.vocabulary.prompt(wish)[int(unknown) :] for wish in options]
            logits_BNV = self._read(prompts, first_row)
            if not unknown:
                start_BV = logits_BNV[:, 0]
            for key, window, wish in zip(keys, encoded, options, strict=True):
                self.rows.append(self._new_row(key, window, wish))
            self._note_silence(start_BV, first_row)
            self._choose(logits_BNV[:, -1], first_row)
        except Exception:
            # Rows and cache rows go together: what could not join leaves no trace.
            while self.cache.num_rows > first_row:
                self.cache.remove(self.cache.num_rows - 1)
            del self.rows[first_row:]
            raise

    def _read(self, tokens: Sequence[Sequence[int]], first_row: int) -> Tensor:
        tokens_BN = torch.tensor(tokens, device=self.weights.embedding_VD.device)
        return decoder.step(self.weights, tokens_BN, self.cache, first_row)

    def _new_row(self, key: int, window: Encoded, wish: DecodeOptions) -> Row:
        device = self.weights.embedding_VD.device
        draws = torch.Generator(device).manual_seed(wish.seed) if wish.temperature else None
        prompt, kept = self.vocabulary.prompt(wish), len(window.states_TD)
        watched = window if wish.word_times else None
        return Row(key, wish, prompt, kept, window.total_frames, draws, watched)

    def _note_silence(self, start_BV: Tensor, first_row: int) -> None:
        if self.vocabulary.no_speech is None:
            return
        silent_B = start_BV.softmax(-1)[:, self.vocabulary.no_speech].tolist()
        for row, probability in zip(self.rows[first_row:], silent_B, strict=True):
            row.no_speech_prob = probability

    def _detect_languages(
        self, logits_BV: Tensor, options: Sequence[DecodeOptions]
    ) -> list[DecodeOptions]:
        """The likeliest language token after start-of-transcript, as openai-whisper detects it."""
        codes = list(self.vocabulary.languages)
        best_B = logits_BV[:, list(self.vocabulary.languages.values())].argmax(-1).tolist()
        return [
            replace(wish, language=codes[best]) for wish, best in zip(options, best_B, strict=True)
        ]

    def _choose(self, logits_BV: Tensor, first_row: int) -> None:
        """Appends the next token of each row from `first_row` on, and moves ended rows to done.

        Raises FloatingPointError where there is no likeliest token: NaN is no answer to anybody.
        """
        rows = self.rows[first_row:]
        allowed_BV = rules.apply(
            self.rules,
            logits_BV,
            [row.tokens for row in rows],
            [row.options.timestamps for row in rows],
        )
        logprobs_BV = allowed_BV.log_softmax(-1)
        chosen_B = allowed_BV.argmax(-1)
        for number, row in enumerate(rows):
            if row.draws is not None:
                weights_V = (allowed_BV[number] / row.options.temperature).softmax(-1)
                chosen_B[number] = torch.multinomial(weights_V, 1, generator=row.draws)[0]
        chosen_logprobs = logprobs_BV.gather(1, chosen_B[:, None])[:, 0].tolist()
        if any(map(math.isnan, chosen_logprobs)):
            raise FloatingPointError("the logits are not numbers")
        for row, token, logprob in zip(rows, chosen_B.tolist(), chosen_logprobs, strict=True):
            row.sum_logprob += logprob
            row.tokens.append(token)
        for number in reversed(range(first_row, len(self.rows))):
            row = self.rows[number]
            if row.tokens[-1] == self.vocabulary.eot or len(row.tokens) >= self.token_limit:
                self.done[row.key] = self._hypothesis(row)
                self._remove(number)

    def _hypothesis(self, row: Row) -> Hypothesis:
        ended = row.tokens[-1] == self.vocabulary.eot
        tokens = row.tokens[:-1] if ended else row.tokens
        return Hypothesis(
            tokens=tuple(tokens),
            avg_logprob=row.sum_logprob / (len(tokens) + 1),
            no_speech_prob=row.no_speech_prob,
            temperature=row.options.temperature,
            language=row.options.language or "en",
            ended=ended,
            kept_frames=row.kept_frames,
            total_frames=row.total_frames,
            words=self._words(row, tokens),
        )

    def _words(self, row: Row, tokens: Sequence[int]) -> tuple[Word, ...]:
        if row.encoded is None:
            return ()
        return find_words(
            self.weights, self.vocabulary, self.alignment, row.encoded, row.options, tokens
        )

    def _latest_tokens(self) -> Tensor:
        device = self.weights.embedding_VD.device
        return torch.tensor([[row.tokens[-1]] for row in self.rows], device=device)

    def _remove(self, number: int) -> None:
        """Frees a row; the last one takes its number, here and in the cache."""
        self.cache.remove(number)
        last = self.rows.pop()
        if number < len(self.rows):
            self.rows[number] = last
