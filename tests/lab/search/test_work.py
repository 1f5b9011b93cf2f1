"""Arithmetic of answers: against what the encoder does, and by what it has to grow and shrink."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from service.families.whisper import Whisper
from service.lab.outcomes import ItemOutcome
from service.lab.search.trials import Trial
from service.lab.search.work import FAKE, encoding, operations, shares_of, window_of
from service.model.encoder import encode
from service.profiles import Profile
from service.text.wer import Errors
from tests.checkpoints import load_plain

DENSE = Profile("dense")
PAIRS = Profile("pairs", 2, 0.5, pool="mean")


def trial(kept: int, tokens: int = 60, again: dict[str, int] | None = None) -> Trial:
    one = ItemOutcome(
        Errors(0, 0, 0, 50), 50, False, False, False, False, Counter(again or {}), 0, ""
    )
    return Trial(one, 1, 1500, kept, tokens)


def work(profile: Profile, *trials: Trial) -> float:
    return operations(FAKE, profile, trials) / operations(FAKE, DENSE, [trial(1500)])


def test_encoding_is_what_the_encoder_multiplies(mini_folder: Path) -> None:
    model = Whisper(load_plain(str(mini_folder)))
    dims = model.checkpoint.weights.dims
    for profile in (Profile("early", 1, 0.6, pool="mean"), Profile("late", late=0.5, pool="mean")):
        counter = FlopCounterMode(display=False)
        # What attention multiplies inside a kernel of its own is not counted.
        with counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
            states, _ = encode(model.checkpoint.weights.encoder, torch.zeros(1, 80, 3000), profile)
        window = window_of(profile, states.shape[1], dims.num_frames)
        keys = 4 * dims.d_model**2 * dims.decoder_layers * window.kept
        assert encoding(
            dims, profile, window, (1.0,) * dims.encoder_layers
        ) - keys == pytest.approx(counter.get_total_flops(), rel=0.001)


def test_factors_are_the_work_that_they_multiply(mini_folder: Path) -> None:
    model = Whisper(load_plain(str(mini_folder)))
    dims = model.checkpoint.weights.dims
    assert shares_of(model, DENSE) == (1.0, 1.0)
    window = window_of(DENSE, 1500, dims.num_frames)
    products = 2 * 12 * dims.d_model**2 * 1500
    whole, half = (encoding(dims, DENSE, window, shares) for shares in ((1.0, 1.0), (1.0, 0.5)))
    assert whole - half == pytest.approx(products / 2)


def test_less_is_less_work() -> None:
    assert work(Profile("gated", gates=0.3), trial(1500)) < work(DENSE, trial(1500))
    assert work(DENSE, trial(1500)) == 1
    assert work(replace(PAIRS, layer=1), trial(750)) < work(PAIRS, trial(750)) < 1
    assert work(replace(PAIRS, sparsity=0.6), trial(600)) < work(PAIRS, trial(750))
    assert 0.8 < work(Profile("late", late=0.5, pool="mean"), trial(750)) < 1
    scored = Profile("scored", 2, 0.5)
    assert work(PAIRS, trial(750)) < work(scored, trial(750))
    assert work(replace(scored, selection="stride"), trial(750)) == work(PAIRS, trial(750))


def test_padding_is_less_work_from_the_first_layer_on() -> None:
    clips = Profile("clips", padding=8)
    assert work(clips, trial(400)) < work(Profile("late", late=0.7, pool="mean"), trial(400)) / 2
    assert work(clips, trial(1500)) == pytest.approx(1)


def test_attempts_and_long_texts_cost() -> None:
    assert work(PAIRS, trial(750, again={"doubt": 1})) > 1
    assert work(PAIRS, trial(750, again={"unfinished": 1})) == work(PAIRS, trial(750))
    assert work(PAIRS, trial(750, tokens=200)) > work(PAIRS, trial(750))


def test_what_was_silent_costs_nothing() -> None:
    silent = replace(trial(0, tokens=0), num_windows=0, total_frames=0)
    assert operations(FAKE, PAIRS, [silent]) == 0
