from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)
from whisper.decoding import ApplyTimestampRules

from service.decode.rules import apply, likeliest, make_rules, said, suppressing
from service.model.tokens import Vocabulary

VOCABULARY = Vocabulary(
    size=60,
    sot=21,
    eot=20,
    no_timestamps=29,
    timestamp_begin=30,
    num_timestamps=30,
    precision_s=0.02,
    text_bytes=(b"x",) * 20,
    multilingual=False,
    languages={},
    suppress_tokens=(3, 21, 25),
    begin_suppress_tokens=(7, 20),
    max_initial_timestamp_index=5,
)
CPU = torch.device("cpu")
RULES = make_rules(VOCABULARY, CPU)
TIMESTAMPS = range(30, 60)

histories = st.lists(st.integers(0, 59), max_size=6)
rows = st.lists(st.tuples(histories, st.booleans()), min_size=1, max_size=5)


def logits_for(num_rows: int, seed: int, lift: float = 0.0) -> Tensor:
    """Random logits, the timestamps' raised by `lift`."""
    logits_BV = torch.randn(num_rows, 60, generator=torch.Generator().manual_seed(seed)) * 2
    logits_BV[:, 30:] += lift
    return logits_BV


def by_transformers(logits_V: Tensor, history: list[int], timed: bool) -> Tensor:
    """One row through transformers' processors; ids below are history without a prompt."""
    never = [*VOCABULARY.suppress_tokens, *(() if timed else TIMESTAMPS)]
    processors = [
        SuppressTokensAtBeginLogitsProcessor(list(VOCABULARY.begin_suppress_tokens), 1),
        SuppressTokensLogitsProcessor(never),
    ]
    if timed:
        config = GenerationConfig(
            no_timestamps_token_id=29, eos_token_id=20, max_initial_timestamp_index=5
        )
        processors.append(WhisperTimeStampLogitsProcessor(config, begin_index=1))
    scores = logits_V[None]
    for processor in processors:
        scores = processor(torch.tensor([[VOCABULARY.sot, *history]]), scores)
    return scores[0]


@given(rows, st.integers(0, 2**31), st.sampled_from([-4.0, 0.0, 4.0]))
def test_mixed_rows_obey_the_same_rules_as_transformers(
    rows: list[tuple[list[int], bool]], seed: int, lift: float
) -> None:
    logits_BV = logits_for(len(rows), seed, lift)
    expected = [
        by_transformers(logits_V, *row) for logits_V, row in zip(logits_BV, rows, strict=True)
    ]
    ruled = apply(RULES, logits_BV, said(RULES, [h for h, _ in rows], [t for _, t in rows]))
    assert torch.equal(ruled, torch.stack(expected))


@given(histories, st.integers(0, 2**31), st.sampled_from([-4.0, 0.0, 4.0]))
def test_the_timestamp_rules_are_those_of_openai_whisper(
    history: list[int], seed: int, lift: float
) -> None:
    logits_BV = logits_for(1, seed, lift)
    ids = SimpleNamespace(no_timestamps=29, timestamp_begin=30, eot=20)
    expected = logits_BV.clone()
    banned = [*VOCABULARY.suppress_tokens, *(() if history else (7, 20))]
    expected[:, banned] = -torch.inf
    ApplyTimestampRules(ids, 0, 5).apply(expected, torch.tensor([history], dtype=torch.long))
    assert torch.equal(apply(RULES, logits_BV, said(RULES, [history], [True])), expected)


def test_a_timestamp_comes_first_and_not_too_late() -> None:
    allowed = (
        apply(RULES, torch.zeros(1, 60), said(RULES, [[]], [True]))[0]
        .isfinite()
        .nonzero()
        .flatten()
    )
    assert allowed.tolist() == [30, 31, 32, 33, 34, 35]


def test_a_pair_is_closed_by_a_timestamp_that_does_not_go_back() -> None:
    text_likelier = logits_for(1, 0, lift=-50.0)
    ruled = apply(RULES, text_likelier, said(RULES, [[30, 5, 40]], [True]))[0]
    assert not ruled[:20].isfinite().any()
    assert ruled[20].isfinite()
    assert ruled[30:].isfinite().nonzero().flatten().tolist() == list(range(10, 30))


def test_a_segment_that_opens_with_something_left_is_said() -> None:
    """The end is banned there alone: not one after it was said, nor near the recording's end."""
    histories = [[30, 5, 40, 40], [30, 5, 40], [30, 5, 40, 40, 6], [30, 5, 50, 50], [30], [5]]
    timed = [True, True, True, True, True, False]
    ruled = apply(RULES, logits_for(6, 0, lift=-50.0), said(RULES, histories, timed, [50] * 6))
    assert ruled[:, 20].isfinite().tolist() == [False, True, True, True, True, True]
    assert ruled[0, 5].isfinite()
    assert not ruled[0, 30:].isfinite().any()


def test_where_all_text_is_suppressed_a_segment_may_be_left_unsaid() -> None:
    own = suppressing(VOCABULARY, range(20), CPU)
    ruled = apply(RULES, torch.zeros(1, 60), said(RULES, [[30, 5, 40, 40]], [True], [50]), {0: own})
    assert ruled[0].isfinite().nonzero().flatten().tolist() == [20]


def test_without_timestamps_there_are_none() -> None:
    ruled = apply(RULES, logits_for(2, 0, lift=9.0), said(RULES, [[], [5]], [False, False]))
    assert not ruled[:, 30:].isfinite().any()
    assert ruled[:, 5].isfinite().all()


def test_the_blank_and_the_end_are_banned_only_at_first() -> None:
    ruled = apply(RULES, torch.zeros(2, 60), said(RULES, [[], [5]], [False, False]))
    assert ruled[:, [7, 20]].isfinite().tolist() == [[False, False], [True, True]]


def test_the_likeliest_is_the_first_of_equals_and_nan_where_there_is_one() -> None:
    logits_BV = torch.zeros(3, 60)
    logits_BV[1, [7, 9]] = 1.0
    logits_BV[2, 5], logits_BV[2, 8] = torch.inf, torch.nan
    assert likeliest(logits_BV).tolist() == [0, 7, 8] == logits_BV.argmax(-1).tolist()


def test_ids_that_pad_the_vocabulary_are_never_allowed() -> None:
    padded = replace(VOCABULARY, size=64, max_initial_timestamp_index=None)
    rules = make_rules(padded, CPU)
    ruled = apply(rules, torch.zeros(3, 64), said(rules, [[], [30], [5]], [True, True, False]))
    assert not ruled[:, 60:].isfinite().any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_gives_what_the_cpu_gives() -> None:
    logits_BV = logits_for(3, 1)
    wanted = ([[], [30, 5], [30, 5, 40]], [True, True, False])
    rules = make_rules(VOCABULARY, torch.device("cuda"))
    own = {1: suppressing(VOCABULARY, [5], torch.device("cuda"))}
    on_cuda = apply(rules, logits_BV.cuda(), said(rules, *wanted), own)
    own = {1: suppressing(VOCABULARY, [5], CPU)}
    assert torch.equal(on_cuda.cpu(), apply(RULES, logits_BV, said(RULES, *wanted), own))
