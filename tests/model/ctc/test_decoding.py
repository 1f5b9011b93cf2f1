"""Frames to symbols, words and tokens."""

from __future__ import annotations

import math
import random
from itertools import groupby, pairwise

import pytest
import torch

from service.model.ctc.decoding import (
    LEAST_HOLE,
    Symbol,
    collapse,
    hear,
    spoken_words,
    timed_words,
    tokens_of,
)
from service.model.ctc.vocabulary import CtcVocabulary
from service.types import Piece

# Blank, delimiter, one that spells nothing, and letters.
VOCABULARY = CtcVocabulary(("", " ", "", "h", "e", "l", "o"), blank=0, delimiter=1, frame_s=0.02)
H, E, L, O = 3, 4, 5, 6  # noqa: E741 - the letter


def by_frames(
    best: list[int], positions: list[int], sizes: list[int], total: int, least_hole: int | None
) -> list[tuple[int, int]]:
    """CTC as it is defined, frame by frame: each symbol, and the frame it begins at.

    Frames that nothing stands for are blank in a hole that parts, else as the state before it.
    """
    frames = [0] * total
    for number, (token, start, size) in enumerate(zip(best, positions, sizes, strict=True)):
        frames[start : start + size] = [token] * size
        end = start + size
        following = positions[number + 1] if number + 1 < len(positions) else end
        held = least_hole is None or following - end < least_hole
        frames[end:following] = [token if held else 0] * (following - end)
    runs, at = [], 0
    for token, run in groupby(frames):
        if token:
            runs.append((token, at))
        at += len(list(run))
    return runs


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("least_hole", [None, 1, LEAST_HOLE])
def test_collapsing_is_that_of_every_frame(pooled: bool, least_hole: int | None) -> None:
    draws = random.Random(0)
    doubled = 0
    for _ in range(300):
        total = draws.randint(1, 40)
        positions = sorted(draws.sample(range(total), draws.randint(1, total)))
        if pooled:
            positions[0] = 0
        ends = [*positions[1:], total] if pooled else [start + 1 for start in positions]
        sizes = [end - start for start, end in zip(positions, ends, strict=True)]
        best = [draws.choice((0, 0, 1, H, L)) for _ in positions]
        logprobs = [-draws.random() for _ in positions]
        symbols = collapse(best, logprobs, positions, sizes, 0, least_hole)
        assert [(s.token, s.start) for s in symbols] == by_frames(
            best, positions, sizes, total, least_hole
        )
        assert all(0 <= s.start < s.end <= total for s in symbols)
        assert all(one.end <= other.start for one, other in pairwise(symbols))
        assert all(
            s.logprob == max(p for p, at in zip(logprobs, positions, strict=True) if at in span(s))
            for s in symbols
        )
        doubled += any(one.token == other.token for one, other in pairwise(symbols))
    assert doubled > 20  # or there was nothing to tell apart


def span(symbol: Symbol) -> range:
    return range(symbol.start, symbol.end)


def said(best: list[int], positions: list[int], pooled: bool = False) -> str:
    sizes = [2 if pooled else 1] * len(best)
    symbols = collapse(best, [-0.1] * len(best), positions, sizes, 0)
    return "".join(VOCABULARY.text(symbol.token) for symbol in symbols)


def test_a_double_letter_where_frames_went() -> None:
    every = [H, E, L, 0, L, O]
    assert said(every, list(range(6))) == "hello"
    # Means of two frames: a state between that says blank parts, as ever; next to each other not.
    assert said([H, E, L, 0, L, O], [0, 2, 4, 6, 8, 10], pooled=True) == "hello"
    assert said([H, E, L, L, O], [0, 2, 4, 6, 8], pooled=True) == "helo"
    # Every second frame: a letter goes on over the frame between, and a long hole parts.
    assert said([H, E, L, L, O], [0, 2, 4, 6, 8]) == "helo"
    assert said([H, E, L, L, O], [0, 2, 4, 4 + LEAST_HOLE + 1, 20]) == "hello"
    assert said([H, E, L, L, O], [0, 2, 4, 4 + LEAST_HOLE, 20]) == "helo"


def logprobs_of(best: list[int], sure: float = 0.9) -> torch.Tensor:
    rest = (1 - sure) / (VOCABULARY.size - 1)
    probs_TV = torch.full((len(best), VOCABULARY.size), rest)
    probs_TV[range(len(best)), best] = sure
    return probs_TV.log()


def frames(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(count), torch.ones(count, dtype=torch.int64)


def test_words_tokens_and_times() -> None:
    best = [1, H, H, E, 0, 1, 0, 1, 2, L, O, *[0] * 40, 1, O, 1]
    heard = hear(logprobs_of(best), *frames(len(best)), VOCABULARY)
    assert heard.avg_logprob == pytest.approx(math.log(0.9), abs=1e-5)
    assert heard.silence == pytest.approx(2 * 0.1 / 6, abs=1e-5)
    words = timed_words(heard, VOCABULARY)
    assert [word.text for word in words] == ["he", " lo", " o"]
    times = [time for word in words for time in (word.start, word.end)]
    assert times == pytest.approx([0.02, 0.08, 0.18, 0.22, 1.04, 1.06])
    assert [word.probability for word in words] == pytest.approx([0.9] * 3)
    time = VOCABULARY.size
    tokens, logprobs = tokens_of(heard, VOCABULARY, timestamps=True)
    assert tokens == (
        *(time + 1, H, E, 1, L, O, time + 11),
        *(time + 52, 1, O, time + 53),  # behind a pause another piece
    )
    assert [p == 0 for p in logprobs] == [token >= time for token in tokens]
    assert VOCABULARY.split_text(tokens) == [
        Piece(0.02, 0.22, "he lo", tokens[:7]),
        Piece(1.04, 1.06, " o", tokens[7:]),
    ]
    spelt = b"".join(VOCABULARY.token_bytes(token) for token in tokens)
    assert spelt.decode() == "".join(word.text for word in words)
    untimed, _ = tokens_of(heard, VOCABULARY, timestamps=False)
    assert VOCABULARY.split_text(untimed) == [Piece(None, None, "he lo o", untimed)]


def test_silence_says_nothing_surely() -> None:
    heard = hear(logprobs_of([0] * 50 + [1] * 10, 0.97), *frames(60), VOCABULARY)
    assert heard.words == ()
    assert heard.silence > 0.97
    assert heard.avg_logprob == pytest.approx(math.log(0.97), abs=1e-5)
    assert tokens_of(heard, VOCABULARY, timestamps=True) == ((), ())


def test_what_is_no_number_is_said_to_be_none() -> None:
    logprobs_TV = logprobs_of([H, E])
    logprobs_TV[1] = math.nan
    assert math.isnan(hear(logprobs_TV, *frames(2), VOCABULARY).avg_logprob)


def test_delimiters_alone_are_no_words() -> None:
    symbols = [Symbol(token, at, at + 1, -0.1) for at, token in enumerate((1, 2, 1, H, 1, 2, 1))]
    (word,) = spoken_words(symbols, VOCABULARY)
    assert (word.start, word.end, word.delimiter) == (3, 4, None)
