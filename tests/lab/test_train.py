from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import WhisperForConditionalGeneration, WhisperTokenizerFast

from service.lab.dataset import Recipe
from service.lab.export import export
from service.lab.initial import new_params
from service.lab.recipe import Material
from service.lab.train import (
    Schedule,
    loss_of,
    misalignment,
    token_loss,
    train,
    unheeded,
)
from service.model import decoder, encoder
from service.model.checkpoint import load_checkpoint
from service.model.weights import Dims, from_state_dict
from service.profiles import BUILT_IN, Profile

from .conftest import recipe_of


@pytest.fixture
def dims(tokenizer: Tokenizer) -> Dims:
    return Dims(80, 1500, 64, 1, 1, 2, 1, tokenizer.get_vocab_size(), 448)


def short(speech: Material, tokenizer: Tokenizer, num_steps: int) -> Recipe:
    return recipe_of(speech, tokenizer, num_steps=num_steps, seconds=4, seed=5)


def schedule(num_steps: int = 4) -> Schedule:
    return Schedule(num_steps, warm_up=2, save_every=2)


def test_a_stopped_run_goes_on_exactly_where_it_was(
    speech: Material, tokenizer: Tokenizer, dims: Dims, tmp_path: Path
) -> None:
    whole = train(short(speech, tokenizer, 4), dims, schedule(), tmp_path / "whole", workers=0)
    train(short(speech, tokenizer, 2), dims, schedule(), tmp_path / "halves", workers=0)
    halves = train(short(speech, tokenizer, 4), dims, schedule(), tmp_path / "halves", workers=0)
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name
    assert len((tmp_path / "halves" / "curve.tsv").read_text().splitlines()) == 4


STRIDE = Profile("stride", sparsity=0.5, selection="stride")
WINNOWED = Profile("winnowed", layer=1, sparsity=0.5)


@pytest.mark.parametrize("profile", [BUILT_IN["dense"], STRIDE, WINNOWED], ids=lambda p: p.name)
def test_training_lowers_the_loss_of_a_batch(
    speech: Material, tokenizer: Tokenizer, dims: Dims, profile: Profile
) -> None:
    params = new_params(dims, seed=0)
    weights = from_state_dict(params, dims)
    batch = replace(short(speech, tokenizer, 1)[0], profile=profile)
    optimiser = torch.optim.Adam([p for p in params.values() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(12):
        loss, _, _ = loss_of(weights, params, batch, schedule())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_attention_is_told_where_a_word_is_in_the_audio_not_among_the_frames_kept() -> None:
    spans_BN2 = torch.tensor([[[1.9, 2.1]]])
    kept_BT = torch.tensor([[0, 50, 100]])  # frames of 20 ms
    inside, outside = (
        misalignment(torch.tensor([[attention]]), spans_BN2, kept_BT)
        for attention in ([0.0, 0.0, 1.0], [0.0, 1.0, 0.0])
    )
    assert inside < 0.01
    assert outside > 5


def test_frames_are_dropped_where_a_batch_asks_for_it(
    speech: Material, tokenizer: Tokenizer, dims: Dims
) -> None:
    params = new_params(dims, seed=0)
    weights = from_state_dict(params, dims)
    batch = short(speech, tokenizer, 1)[0]
    dense, again, stride, winnowed = (
        loss_of(weights, params, replace(batch, profile=profile), schedule())[1]
        for profile in (BUILT_IN["dense"], BUILT_IN["dense"], STRIDE, WINNOWED)
    )
    assert dense == again
    assert len({dense, stride, winnowed}) == 3


def test_attention_learns_to_fall_on_the_frames_in_which_something_is_said(
    speech: Material, tokenizer: Tokenizer, dims: Dims
) -> None:
    params = new_params(dims, seed=0)
    weights = from_state_dict(params, dims)
    batch = replace(short(speech, tokenizer, 1)[0], profile=WINNOWED)
    only = replace(schedule(), ctc_weight=0.0, alignment_weight=0.0, heed_weight=100.0)
    optimiser = torch.optim.Adam([p for p in params.values() if p.requires_grad], lr=1e-3)
    costs = []
    for _ in range(20):
        _, _, scores = encoder.encode_watched(weights.encoder, batch.mel_BFT, WINNOWED)
        assert scores is not None
        costs.append(float(unheeded(scores, batch.spans_BN2).detach()))
        optimiser.zero_grad()
        loss_of(weights, params, batch, only)[0].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert costs[-1] < 0.8 * costs[0]


def test_attention_that_is_spread_evenly_over_what_is_said_costs_nothing() -> None:
    spans_BN2 = torch.tensor([[[0.02, 0.06], [-1.0, -1.0]], [[-1.0, -1.0], [-1.0, -1.0]]])
    even, uneven, elsewhere = (
        float(unheeded(torch.tensor([row, [0.25] * 4]), spans_BN2))
        for row in ([0, 0.5, 0.5, 0], [0, 0.9, 0.1, 0], [0.5, 0, 0, 0.5])
    )
    assert abs(even) < 1e-6
    assert 0.1 < uneven < 1 < 5 < elsewhere
    assert unheeded(torch.ones(1, 4), -torch.ones(1, 2, 2)) == 0


def test_a_near_timestamp_costs_less_than_a_far_one_and_a_wrong_word() -> None:
    words = 10
    targets = torch.tensor([[3, words + 700]])

    def loss(*said: int) -> float:
        logits = torch.zeros(1, 2, words + 1501)
        logits[0, [0, 1], list(said)] = 12.0
        return float(token_loss(logits, targets, timestamp_weight=0.5))

    right = loss(3, words + 700)
    assert right < loss(3, words + 701) < loss(3, words + 710) < loss(4, words + 700)


def test_the_rate_warms_up_and_falls_to_its_end() -> None:
    plan = Schedule(num_steps=100, peak_rate=1.0, warm_up=10)
    rates = [plan.rate(step) for step in range(100)]
    assert max(rates) == rates[9] == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.03


def test_an_export_loads_here_and_in_transformers_with_the_same_logits(
    tokenizer: Tokenizer, dims: Dims, tmp_path: Path
) -> None:
    export(new_params(dims, seed=1), tokenizer, dims, "Digits only.", tmp_path)
    checkpoint = load_checkpoint(str(tmp_path), device="cpu", dtype="float32")
    reference = WhisperForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(2))
    tokens = torch.tensor([[checkpoint.vocabulary.sot, 5, 7]])
    with torch.inference_mode():
        states, _ = encoder.encode(checkpoint.weights.encoder, mel, BUILT_IN["dense"])
        logits = decoder.forward(checkpoint.weights.decoder, tokens, states)
        expected = reference(input_features=mel, decoder_input_ids=tokens).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_an_export_states_its_name_limits_and_vocabulary(
    tokenizer: Tokenizer, dims: Dims, tmp_path: Path
) -> None:
    export(new_params(dims, seed=1), tokenizer, dims, "Digits only.", tmp_path)
    checkpoint = load_checkpoint(str(tmp_path), device="cpu")
    assert checkpoint.name == "winnow-nano"
    assert checkpoint.limits == "Digits only."
    assert list(checkpoint.vocabulary.languages) == ["en"]
    assert checkpoint.vocabulary.num_timestamps == 1501
    ids = tokenizer.encode(" one two").ids
    assert len(ids) == 2
    assert checkpoint.vocabulary.decode(ids) == " one two"
    fast = WhisperTokenizerFast.from_pretrained(tmp_path)
    assert fast.decode(ids) == " one two"
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "whisper"
