"""What the frames of a window say, one symbol each -> symbols, words and tokens, with times.

CTC (Graves et al. 2006): of the likeliest symbol of each frame, equal neighbours are one, and then
blanks go. Where frames went, what they would have said is put in a line between the states on
either side, in log-probabilities; a mean stands in the middle of its frames. A symbol that both
sides find likeliest goes on between them, and one that both find likely may come up there. On
encoders that were trained here that takes half of the loss away; a blank that is assumed where
states are far apart adds to it (docs/reports/ctc).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.model.ctc.vocabulary import CtcVocabulary
from service.types import Word

# Without punctuation a pause is all that says where a sentence might end: a piece of text does.
PAUSE_S = 0.6


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol that was said, from frame `start` to before `end`; `logprob` of its surest frame."""

    token: int
    start: int
    end: int
    logprob: float


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """The symbols of a word, those that spell something, and the delimiter before it, None before
    the first."""

    symbols: tuple[Symbol, ...]
    delimiter: Symbol | None = None

    @property
    def start(self) -> int:
        return self.symbols[0].start

    @property
    def end(self) -> int:
        return self.symbols[-1].end


@dataclass(frozen=True, slots=True)
class Heard:
    """What a window says. `silence`: the probability of nothing in the frame that has least of it;
    `avg_logprob`: of the symbols, or, where there are none, of the frames' blanks."""

    words: tuple[SpokenWord, ...]
    silence: float
    avg_logprob: float


def every_frame(logprobs_KV: Tensor, positions_K: Tensor, sizes_K: Tensor) -> Tensor:
    """What states say -> what each frame says, (F, V), from the first state's position to the end
    of the last.

    State i stands for `sizes[i]` frames from `positions[i]` on. Where every frame has its state,
    that is what is given.
    """
    num_frames = int(positions_K[-1] + sizes_K[-1] - positions_K[0])
    if num_frames == len(positions_K):
        return logprobs_KV
    frames_F = torch.arange(num_frames)
    if len(positions_K) == 1:
        return logprobs_KV.expand(num_frames, -1)
    centres_K = (positions_K - positions_K[0]) + (sizes_K - 1) / 2
    after_F = torch.searchsorted(centres_K, frames_F.float()).clamp(1, len(centres_K) - 1)
    before, after = centres_K[after_F - 1], centres_K[after_F]
    share_F1 = ((frames_F - before) / (after - before)).clamp(0, 1)[:, None]
    between_FV = torch.lerp(logprobs_KV[after_F - 1], logprobs_KV[after_F], share_F1)
    return torch.log_softmax(between_FV, dim=-1)


def collapse(
    best: Sequence[int], logprobs: Sequence[float], blank: int, first: int = 0
) -> list[Symbol]:
    """The symbols that frames say, in order. `first`: which frame is the first of them."""
    symbols: list[Symbol] = []
    previous = blank
    for frame, (token, logprob) in enumerate(zip(best, logprobs, strict=True), first):
        if token != blank and token == previous:
            last = symbols[-1]
            symbols[-1] = Symbol(token, last.start, frame + 1, max(last.logprob, logprob))
        elif token != blank:
            symbols.append(Symbol(token, frame, frame + 1, logprob))
        previous = token
    return symbols


def spoken_words(symbols: Sequence[Symbol], vocabulary: CtcVocabulary) -> tuple[SpokenWord, ...]:
    """Symbols between delimiters; of several delimiters the last stands before the word."""
    words: list[SpokenWord] = []
    letters: list[Symbol] = []
    delimiter: Symbol | None = None
    for symbol in symbols:
        if symbol.token == vocabulary.delimiter:
            if letters:
                words.append(SpokenWord(tuple(letters), delimiter))
            letters, delimiter = [], symbol if words else None
        elif vocabulary.text(symbol.token):
            letters.append(symbol)
    if letters:
        words.append(SpokenWord(tuple(letters), delimiter))
    return tuple(words)


def hear(
    logprobs_KV: Tensor, positions_K: Tensor, sizes_K: Tensor, vocabulary: CtcVocabulary
) -> Heard:
    """What states say whose symbols have these log-probabilities.

    Where they are not numbers, neither is `avg_logprob`.
    """
    if bool(logprobs_KV.isnan().any()):
        return Heard((), math.nan, math.nan)
    best = every_frame(logprobs_KV, positions_K, sizes_K).max(dim=-1)
    nothing_K = logprobs_KV[:, [vocabulary.blank, vocabulary.delimiter]].exp().sum(-1)
    symbols = collapse(
        best.indices.tolist(), best.values.tolist(), vocabulary.blank, int(positions_K[0])
    )
    words = spoken_words(symbols, vocabulary)
    said = [symbol.logprob for word in words for symbol in word.symbols]
    avg_logprob = sum(said) / len(said) if said else float(best.values.mean())
    return Heard(words, min(1.0, float(nothing_K.min())), avg_logprob)


def tokens_of(
    heard: Heard, vocabulary: CtcVocabulary, *, timestamps: bool
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """A hypothesis' tokens and their log-probabilities: words with delimiters between, and times
    around what no long pause parts; a time's log-probability is 0."""
    tokens: list[int] = []
    logprobs: list[float] = []

    def say(token: int, logprob: float = 0.0) -> None:
        tokens.append(token)
        logprobs.append(logprob)

    for number, word in enumerate(heard.words):
        opens = number == 0 or _pause_s(heard.words, number, vocabulary) >= PAUSE_S
        if timestamps and opens:
            if number:
                say(vocabulary.size + heard.words[number - 1].end)
            say(vocabulary.size + word.start)
        if word.delimiter is not None:
            say(vocabulary.delimiter, word.delimiter.logprob)
        for symbol in word.symbols:
            say(symbol.token, symbol.logprob)
    if timestamps and heard.words:
        say(vocabulary.size + heard.words[-1].end)
    return tuple(tokens), tuple(logprobs)


def timed_words(heard: Heard, vocabulary: CtcVocabulary) -> tuple[Word, ...]:
    """Each from its first symbol to its last; their texts joined are that of the tokens."""
    return tuple(
        Word(
            start=word.start * vocabulary.frame_s,
            end=word.end * vocabulary.frame_s,
            text=(vocabulary.text(vocabulary.delimiter) if word.delimiter else "")
            + "".join(vocabulary.text(symbol.token) for symbol in word.symbols),
            probability=sum(math.exp(s.logprob) for s in word.symbols) / len(word.symbols),
        )
        for word in heard.words
    )


def logprobs_of(logits_TV: Tensor) -> Tensor:
    """In float32, whatever the states are in."""
    return torch.log_softmax(logits_TV.float(), dim=-1)


def _pause_s(words: Sequence[SpokenWord], number: int, vocabulary: CtcVocabulary) -> float:
    """Before a word, behind the one before it."""
    return (words[number].start - words[number - 1].end) * vocabulary.frame_s
