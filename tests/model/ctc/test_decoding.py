"""Frames to symbols, words and tokens."""

from __future__ import annotations

import math
import random
from itertools import groupby

import pytest
import torch
from torch.testing import assert_close

from service.decode.ctc import (
    Symbol,
    collapse,
    every_frame,
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


@pytest.mark.parametrize("seed", range(20))
def test_collapsing_is_runs_without_blanks(seed: int) -> None:
    draws = random.Random(seed)
    best = [draws.choice((0, 0, 1, H, L)) for _ in range(draws.randint(1, 60))]
    logprobs = [-draws.random() for _ in best]
    symbols = collapse(best, logprobs, 0, first=7)
    at, expected = 7, []
    for token, run in groupby(best):
        end = at + len(list(run))
        if token:
            expected.append((token, at, end, max(logprobs[at - 7 : end - 7])))
        at = end
    assert [(s.token, s.start, s.end, s.logprob) for s in symbols] == expected


def drawn(count: int, seed: int = 0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, VOCABULARY.size, generator=source).log_softmax(-1)


def test_where_every_frame_is_there_nothing_is_put_between() -> None:
    logprobs_KV = drawn(9)
    assert every_frame(logprobs_KV, torch.arange(3, 12), torch.ones(9)) is logprobs_KV


def test_what_went_is_in_a_line_between() -> None:
    logprobs_KV, positions_K = drawn(4), torch.tensor([2, 3, 7, 9])
    found_FV = every_frame(logprobs_KV, positions_K, torch.ones(4, dtype=torch.int64))
    assert len(found_FV) == 8
    assert_close(found_FV[[0, 1, 5, 7]], logprobs_KV)
    quarter = (0.75 * logprobs_KV[1] + 0.25 * logprobs_KV[2]).log_softmax(-1)
    assert_close(found_FV[2], quarter)
    assert_close(found_FV[6], (0.5 * (logprobs_KV[2] + logprobs_KV[3])).log_softmax(-1))


def test_a_mean_stands_in_the_middle_of_its_frames() -> None:
    logprobs_KV = drawn(3)
    positions_K, sizes_K = torch.tensor([0, 2, 4]), torch.tensor([2, 2, 3])
    found_FV = every_frame(logprobs_KV, positions_K, sizes_K)
    assert len(found_FV) == 7
    assert_close(found_FV[[0, 5, 6]], logprobs_KV[[0, 2, 2]])  # outermost: as there
    near = (0.75 * logprobs_KV[0] + 0.25 * logprobs_KV[1]).log_softmax(-1)
    assert_close(found_FV[1], near)
    assert_close(every_frame(logprobs_KV[:1], positions_K[:1], sizes_K[:1]), logprobs_KV[[0, 0]])


def text_of(best: list[int], positions: list[int], sizes: list[int]) -> str:
    heard = hear(logprobs_of(best), torch.tensor(positions), torch.tensor(sizes), VOCABULARY)
    return "".join(VOCABULARY.text(symbol.token) for word in heard.words for symbol in word.symbols)


def test_a_double_letter_where_frames_went() -> None:
    every = [H, E, L, 0, L, O]
    assert text_of(every, list(range(6)), [1] * 6) == "hello"
    # A state that says blank parts, as ever; over frames that went a letter goes on.
    assert text_of(every, [0, 2, 4, 6, 8, 10], [2] * 6) == "hello"
    for far in (6, 12):
        assert text_of([H, E, L, L, O], [0, 2, 4, far, 20], [1] * 5) == "helo"


def test_what_both_sides_find_likely_comes_up_between() -> None:
    """A letter that was said in a frame that went."""
    probs_KV = torch.full((2, VOCABULARY.size), 0.01)
    probs_KV[0, [H, L]] = torch.tensor([0.5, 0.44])
    probs_KV[1, [E, L]] = torch.tensor([0.5, 0.44])
    heard = hear(probs_KV.log(), torch.tensor([3, 5]), torch.ones(2, dtype=torch.int64), VOCABULARY)
    ((word),) = heard.words
    assert [(s.token, s.start) for s in word.symbols] == [(H, 3), (L, 4), (E, 5)]


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
