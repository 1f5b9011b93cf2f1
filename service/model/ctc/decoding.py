"""What the frames of a window say, one symbol each -> symbols, words and tokens, with times.

CTC (Graves et al. 2006): of the likeliest symbol of each frame, equal neighbours are one, and then
blanks go. So a letter that is said twice needs a blank between, and where frames went nobody knows
whether there was one. Three cases:

- States that are means stand for all of their frames, until the next one's. None is missing: a
  blank is where a state says so.
- Frames that went one by one leave small holes. A letter lasts a frame or two: the same one on both
  sides of a small hole is one letter, held over the hole.
- Over a hole of `LEAST_HOLE` frames or more no letter lasts: a blank is assumed, and the same
  letter on both sides was said twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from service.model.ctc.vocabulary import CtcVocabulary
from service.types import Word

# Frames that went between two that are left. Over so many a letter would last five, 100 ms; where
# every frame is there it is said in one or two.
LEAST_HOLE = 3
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


def collapse(
    best: Sequence[int],
    logprobs: Sequence[float],
    positions: Sequence[int],
    sizes: Sequence[int],
    blank: int,
    least_hole: int | None = LEAST_HOLE,
) -> list[Symbol]:
    """The symbols that states say, in order.

    State i says `best[i]`, and stands for `sizes[i]` frames from `positions[i]` on. A symbol goes
    on over a hole between two states, unless it is of `least_hole` frames; None: over any.
    """
    symbols: list[Symbol] = []
    previous, until = blank, 0
    for token, logprob, start, size in zip(best, logprobs, positions, sizes, strict=True):
        parted = least_hole is not None and start - until >= least_hole
        if token != blank and token == previous and not parted:
            last = symbols[-1]
            symbols[-1] = Symbol(token, last.start, start + size, max(last.logprob, logprob))
        elif token != blank:
            symbols.append(Symbol(token, start, start + size, logprob))
        previous, until = token, start + size
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
    logprobs_TV: Tensor, positions_T: Tensor, sizes_T: Tensor, vocabulary: CtcVocabulary
) -> Heard:
    """What states say whose symbols have these log-probabilities.

    Where they are not numbers, neither is `avg_logprob`.
    """
    best = logprobs_TV.max(dim=-1)
    nothing_T = logprobs_TV[:, [vocabulary.blank, vocabulary.delimiter]].exp().sum(-1)
    if bool(logprobs_TV.isnan().any()):
        return Heard((), math.nan, math.nan)
    symbols = collapse(
        best.indices.tolist(),
        best.values.tolist(),
        positions_T.tolist(),
        sizes_T.tolist(),
        vocabulary.blank,
    )
    words = spoken_words(symbols, vocabulary)
    said = [symbol.logprob for word in words for symbol in word.symbols]
    avg_logprob = sum(said) / len(said) if said else float(best.values.mean())
    return Heard(words, min(1.0, float(nothing_T.min())), avg_logprob)


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
