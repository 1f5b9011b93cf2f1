"""Continuous decoding: windows join and leave the batch at every step.

A window is one row, or `beam_size` of them from its first own token on. Rows of one window are
moved and copied among themselves only, so a beam changes nothing for anybody else.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from service.decode import beams, loops, rules, search, step
from service.decode.beams import Going
from service.decode.packed import empty_cache
from service.decode.prompt import PromptReader
from service.decode.rows import GIVEN, Row, WindowState, fit, new_state
from service.decode.rules import Rules, Said
from service.decode.search import Scored
from service.decode.step import Chosen, Ways
from service.model import decoder
from service.model.cache import Cache
from service.model.protocol import WindowsFailedError
from service.model.tokens import Vocabulary
from service.model.weights import DecoderWeights
from service.types import DecodeOptions, Encoded, Hypothesis

if TYPE_CHECKING:
    from service.decode.graphs import Graphs


class Launched(NamedTuple):
    """A step that the device was told to do, and the rows that it is for."""

    chosen: Chosen
    rows: Sequence[Row]


class WindowDecoder:
    """`protocol.DecodeBatch` over a checkpoint's decoder. All state of its windows is here."""

    def __init__(
        self,
        weights: DecoderWeights,
        vocabulary: Vocabulary,
        token_rules: Rules,
        max_tokens: int,
        graphs: Graphs | None = None,
    ) -> None:
        """`graphs`: a GPU's memory and step; None: rows are packed, and a step is so many calls."""
        self.weights, self.vocabulary, self.rules = weights, vocabulary, token_rules
        self.device = weights.embedding_VD.device
        self.max_tokens = max_tokens
        self.graphs = graphs
        self.cache: Cache = empty_cache(weights) if graphs is None else graphs.cache
        # Half the context, as openai-whisper has it: the other half is for a previous text.
        self.token_limit = max_tokens // 2
        self.guarded = True  # a window in a loop ends before its limit
        self.rows: list[Row] = []
        self.done: dict[int, Hypothesis] = {}
        self.failed: set[int] = set()  # since the last time that they were named
        # What the rows have said, on the device; None where they are not what they were.
        self.spoken: tuple[Tensor, Said] | None = None
        self.ahead: Launched | None = None  # a step that was not heard yet

    def __len__(self) -> int:
        return len({row.window.key for row in self.rows}) + len(self.done)

    @torch.inference_mode()
    def join(
        self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
    ) -> None:
        """Adds windows, says which language they are in where nobody did, and their first token."""
        options = [fit(wish, self.max_tokens) for wish in options]
        # Rows that share what they are given, but for its words, are prefilled together.
        groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for i, (window, wish) in enumerate(zip(encoded, options, strict=True)):
            given = (len(wish.prompt), len(wish.prefix), wish.timestamps)
            unknown = wish.language is None and self.vocabulary.multilingual
            kept = (len(window.states_TD), window.log_weights_T is None)
            groups[kept, given, unknown, wish.language_only].append(i)
        try:
            for members in groups.values():
                wishes = [options[i] for i in members]
                windows = [encoded[i] for i in members]
                self._prefill([keys[i] for i in members], windows, wishes)
        except Exception:
            self.drop(keys)
            raise
        self._name_failed()

    @torch.inference_mode()
    def step(self) -> dict[int, Hypothesis]:
        """One token for every window; returns, and forgets, those that are done.

        With graphs the host is a step behind the device: while the next step runs, it hears what
        the last one chose. What it learns too late costs a row one token that nobody reads.
        """
        if self.rows:
            launched, self.ahead = self.ahead or self._launch(), None
            if self._may_go_on(launched):
                self.ahead = self._launch()
            self._hear(*launched)
        self._name_failed()
        done, self.done = self.done, {}
        return done

    @torch.inference_mode()
    def drop(self, keys: Collection[int]) -> None:
        """Forgets windows whose results nobody waits for."""
        for row in self.rows:
            row.over = row.window.key in keys
        self._remove_over(first_row=0)
        for key in keys:
            self.done.pop(key, None)

    def _launch(self) -> Launched:
        """Tells the device to choose the next token of every row."""
        chosen = self._step(*(self.spoken or self._tell_device()))
        self.spoken = (chosen.token_B[:, None], chosen.said)
        return Launched(chosen, list(self.rows))

    def _step(self, tokens_B1: Tensor, said: Said) -> Chosen:
        ways = self._ways(0)
        if self.graphs is not None and not (ways.bias or ways.draws):
            chosen = self.graphs.step(tokens_B1, said)
            if chosen is not None:
                return chosen
        return step.step(self.weights, self.cache, self.rules, tokens_B1, said, ways)

    def _may_go_on(self, launched: Launched) -> bool:
        """Whether the step after the one launched needs nothing that this one has to say."""
        return (
            launched.chosen.sent is not None
            and self.spoken is not None
            and all(row.window.beam_size == 1 for row in self.rows)
            and max(self.cache.lengths) < self.max_tokens
        )

    def _name_failed(self) -> None:
        failed, self.failed = self.failed, set()
        if failed:
            raise WindowsFailedError(sorted(failed))

    def _prefill(
        self, keys: Sequence[int], encoded: Sequence[Encoded], options: Sequence[DecodeOptions]
    ) -> None:
        """Reads what windows of one group are given, and chooses their first token."""
        first_row = len(self.rows)
        prompts = PromptReader(self.weights, self.vocabulary, self.cache)
        self.spoken = None
        states = [
            new_state(*one, self.vocabulary, self.device, self._limit(one[2]))
            for one in zip(keys, encoded, options, strict=True)
        ]
        try:
            log_weights = [w.log_weights_T for w in encoded if w.log_weights_T is not None]
            decoder.join(
                self.weights,
                self.cache,
                torch.stack([window.states_TD for window in encoded]),
                torch.stack(log_weights) if log_weights else None,
                [window.gates for window in encoded],
            )
            prompts.hear_language(states, first_row)
            if options[0].language_only:
                self._forget(first_row)
                for state in states:
                    self._answer_language(state)
                return
            logits_BV = prompts.read(states, first_row)
            self.rows += [
                Row(state, list(state.opening[: state.num_given]), [GIVEN] * state.num_given)
                for state in states
            ]
            self._choose(logits_BV, first_row)
        except Exception:
            # Rows and cache rows go together: what could not join leaves no trace.
            self._forget(first_row)
            raise

    def _limit(self, options: DecodeOptions) -> int:
        """How many tokens a window may say: the last one is never read, and needs no place."""
        given = len(self.vocabulary.prompt(replace(options, language=self._any_language)))
        return min(self.token_limit, self.max_tokens + 1 - given)

    @property
    def _any_language(self) -> str | None:
        return next(iter(self.vocabulary.languages), None)

    def _choose(self, logits_BV: Tensor, first_row: int) -> None:
        """The next token of each row from `first_row` on."""
        ways = self._ways(first_row)
        chosen = step.choose(self.rules, logits_BV, self._said(first_row), ways)
        self.spoken = (chosen.token_B[:, None], chosen.said) if first_row == 0 else None
        self._hear(chosen, self.rows[first_row:], first_row)

    def _hear(self, chosen: Chosen, rows: Sequence[Row], first_row: int = 0) -> None:
        """Appends the token of each row, of those from `first_row` on, and moves ended ones to
        done; but not of those that have left since.

        Where there is no likeliest token the window fails: NaN is no answer to anybody.
        """
        heard = [
            (row, token, logprob)
            for row, (token, logprob) in zip(rows, chosen.to_host(), strict=True)
            if not row.over
        ]
        self._fail({row.window.key for row, _, logprob in heard if math.isnan(logprob)})
        for row, token, logprob in heard:
            if row.window.beam_size == 1 and not row.over:
                self._say(row, token, logprob)
        if any(row.window.beam_size > 1 for row in rows):
            self._branch(chosen.logprobs_BV, first_row)
        self._remove_over(first_row)

    def _ways(self, first_row: int) -> Ways:
        windows = [row.window for row in self.rows[first_row:]]
        return Ways(
            {n: w.bias_KV for n, w in enumerate(windows) if w.bias_KV is not None},
            {
                n: (w.options.temperature, w.draws)
                for n, w in enumerate(windows)
                if w.draws is not None
            },
        )

    def _fail(self, keys: Collection[int]) -> None:
        """These windows' rows leave at this step."""
        self.failed.update(keys)
        for row in self.rows if keys else ():
            row.over = row.over or row.window.key in keys

    def _answer_language(self, state: WindowState) -> None:
        """Of a window that was asked for nothing else."""
        if math.isnan(state.language_probs[0][1]):
            self.failed.add(state.key)
        else:
            self.done[state.key] = state.hypothesis(Scored((), 0.0, ended=True))

    def _say(self, row: Row, token: int, logprob: float) -> None:
        """The next token of a window of one row."""
        row.sum_logprob += logprob
        ended = token == self.vocabulary.eot
        if not ended:
            row.tokens.append(token)
            row.logprobs.append(logprob)
        if ended or self._is_cut(row.window, row.tokens):
            self._answer(row.window, row.said(row.sum_logprob, ended))
            row.over = True

    def _is_cut(self, window: WindowState, tokens: Sequence[int]) -> bool:
        """Whether a sequence that has not ended ends here: at the limit, or in a loop."""
        if len(tokens) >= window.token_limit:
            return True
        # Not at every step: a row is read through, and most have nothing to say.
        if not self.guarded or not loops.is_due(len(tokens)):
            return False
        begin = self.vocabulary.timestamp_begin
        return loops.is_looping([token for token in tokens if token < begin])

    def _answer(self, window: WindowState, said: Scored) -> None:
        self.done[window.key] = window.hypothesis(said)

    def _branch(self, logprobs_BV: Tensor, first_row: int) -> None:
        """The next token of windows that have beams, each by the best of its rows."""
        members: dict[int, list[int]] = defaultdict(list)
        for number, row in enumerate(self.rows[first_row:], first_row):
            if row.window.beam_size > 1 and not row.over:
                members[row.window.key].append(number)
        for numbers in members.values():
            rows = [self.rows[number] for number in numbers]
            window = rows[0].window
            logprobs_RV = logprobs_BV[[number - first_row for number in numbers]]
            going = beams.grow(window, rows, logprobs_RV, self.vocabulary.eot)
            if beams.is_done(window, going) or self._is_cut(window, going.sequences[0].tokens):
                self._answer(window, beams.answer(window, going))
                for row in rows:
                    row.over = True
            else:
                self._replant(numbers, going)

    def _replant(self, members: Sequence[int], going: Going) -> None:
        """Puts sequences on a window's rows, each on a copy of what its source row has read."""
        self.spoken = None
        window, rows = self.rows[members[0]].window, list(members)
        places = search.place(going.sources)
        moves: dict[int, int] = {}
        for place, source in sorted(zip(places, going.sources, strict=True)):
            if place >= len(members):
                rows.append(self.cache.fork(members[source]))
                self.rows.append(Row(window, [], []))
            elif place != source:
                moves[members[place]] = members[source]
        self.cache.reorder(list(moves), list(moves.values()))
        for place, sequence in zip(places, going.sequences, strict=True):
            row = self.rows[rows[place]]
            row.tokens, row.logprobs = list(sequence.tokens), list(sequence.logprobs)
            row.sum_logprob = sequence.sum_logprob
        for surplus in rows[len(going.sequences) :]:
            self.rows[surplus].over = True

    def _tell_device(self) -> tuple[Tensor, Said]:
        """The last token of every row, and what the rules look back on."""
        tokens = [[row.tokens[-1]] for row in self.rows]
        return torch.tensor(tokens, device=self.device), self._said(0)

    def _said(self, first_row: int) -> Said:
        rows = self.rows[first_row:]
        return rules.said(
            self.rules,
            [row.tokens for row in rows],
            [row.window.options.timestamps for row in rows],
            [row.window.unsaid for row in rows],
        )

    def _remove_over(self, first_row: int) -> None:
        """Frees rows that are over; the last one takes the number, here and in the cache."""
        for number in reversed(range(first_row, len(self.rows))):
            if self.rows[number].over:
                self.spoken = None
                self.cache.remove(number)
                last = self.rows.pop()
                if number < len(self.rows):
                    self.rows[number] = last

    def _forget(self, first_row: int) -> None:
        self.spoken = None
        while self.cache.num_rows > first_row:
            self.cache.remove(self.cache.num_rows - 1)
        del self.rows[first_row:]
