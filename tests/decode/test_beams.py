"""A window's beam, one token further."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from service.decode import beams
from service.decode.rows import Row, WindowState
from service.types import DecodeOptions

EOT, VOCABULARY = 5, 6


def a_window(beam_size: int = 2, patience: float = 1.0) -> WindowState:
    options = DecodeOptions("en", beam_size=beam_size, patience=patience, timestamps=False)
    return WindowState(
        key=0,
        options=options,
        opening=(),
        token_limit=100,
        kept_frames=1500,
        total_frames=1500,
        unsaid=0,
    )


def logprobs(*rows: dict[int, float]) -> Tensor:
    found = torch.full((len(rows), VOCABULARY), -torch.inf)
    for number, row in enumerate(rows):
        for token, value in row.items():
            found[number, token] = value
    return found


def test_the_likeliest_go_on_and_what_ended_is_remembered() -> None:
    window = a_window()
    rows = [Row(window, [1], [-1.0], -1.0), Row(window, [2], [-2.0], -2.0)]
    going = beams.grow(window, rows, logprobs({3: -0.5, EOT: -0.1}, {4: -0.25, 3: -9.0}), eot=EOT)
    assert going.sources == [0, 1]
    assert [one.tokens for one in going.sequences] == [(1, 3), (2, 4)]
    assert [one.sum_logprob for one in going.sequences] == [-1.5, -2.25]
    assert going.sequences[0].logprobs == (-1.0, -0.5)
    assert [(one.tokens, one.ended) for one in window.finished] == [((1,), True)]
    assert window.finished[0].sum_logprob == pytest.approx(-1.1)
    assert not beams.is_done(window, going)


def test_no_more_is_remembered_than_end_the_search() -> None:
    """The likeliest of those that end at once."""
    window = a_window(patience=0.5)
    rows = [Row(window, [1], [-1.0], -1.0), Row(window, [2, 2, 2], [-0.5] * 3, -1.5)]
    going = beams.grow(window, rows, logprobs({EOT: -0.1, 3: -2.0}, {EOT: -0.1, 3: -2.0}), eot=EOT)
    assert [one.tokens for one in window.finished] == [(1,)]
    assert beams.is_done(window, going)


def test_what_is_impossible_is_no_candidate() -> None:
    window = a_window()
    going = beams.grow(window, [Row(window, [], [])], logprobs({EOT: 0.0}), eot=EOT)
    assert going == beams.Going([], [])
    assert beams.is_done(window, going)
    assert beams.answer(window, going).tokens == ()


def test_what_goes_on_answers_where_too_little_has_ended() -> None:
    window = a_window(beam_size=2)
    rows = [Row(window, [1], [-1.0], -1.0)]
    going = beams.grow(window, rows, logprobs({3: -0.5, 4: -3.0}), eot=EOT)
    assert beams.answer(window, going).tokens == (1, 3)
