from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.costs import Cost, Rates, Work, stages, step
from bench.stages import measure
from bench.stages.report import Found, as_json, tables
from service.decode import rules
from service.families.whisper import Whisper
from service.model import decoder
from service.model.checkpoint import load_checkpoint
from service.model.weights import Dims
from service.profiles import Profile

DIMS = Dims(
    num_mels=80,
    num_frames=1500,
    d_model=512,
    encoder_heads=8,
    decoder_heads=8,
    encoder_layers=6,
    decoder_layers=6,
    vocab_size=51865,
    max_tokens=448,
)
HALVED = Profile("halved", layer=2, sparsity=0.5, pool="mean")
THINNED = Profile("thinned", layer=1, sparsity=0.5)


def work(profile: Profile, windows: int = 8) -> Work:
    kept = 1500 if profile.sparsity == 0 else 750
    return Work(DIMS, profile, windows, kept, prompt=4, tokens=64, weight=4, state=4, cross=4)


@pytest.fixture(scope="module")
def model(mini_folder: Path) -> Whisper:
    checkpoint = load_checkpoint(str(mini_folder), device="cpu", dtype="float32")
    return measure.endless(Whisper(checkpoint))


def test_costs_are_those_of_the_arithmetic() -> None:
    pieces = step(work(Profile("dense")))
    assert pieces["cross keys and values"].bytes == 8 * 1500 * 512 * 2 * 6 * 4
    assert pieces["logits"] == Cost(2 * 8 * 51865 * 512, 51865 * 512 * 4)
    dense, halved = stages(work(Profile("dense"))), stages(work(HALVED))
    layer_flops = 8 * (24 * 1500 * 512**2 + 4 * 1500**2 * 512)
    assert dense["layers before"].flops == 6 * layer_flops
    assert halved["layers before"].flops == 2 * layer_flops
    # Half the frames are half the products and a quarter of the attention.
    assert halved["layers after"].flops == 4 * 8 * (24 * 750 * 512**2 + 4 * 750**2 * 512)
    assert halved["cross keys"].flops == dense["cross keys"].flops / 2
    assert dense["layers after"].flops == dense["thinning"].bytes == 0


def test_a_stage_waits_for_what_takes_longer() -> None:
    rates = Rates(matrix=100.0, copy=10.0)
    assert Cost(200, 10).seconds(rates) == 2
    assert Cost(200, 10).bound(rates) == "products"
    assert Cost(200, 30).seconds(rates) == 3
    assert Cost(200, 30).bound(rates) == "bytes"


@pytest.mark.parametrize("profile", [Profile("dense"), THINNED])
def test_every_stage_is_measured_and_has_its_cost(model: Whisper, profile: Profile) -> None:
    watched = ((decoder, "step"), (decoder, "join"), (rules, "apply"))
    functions = [getattr(module, name) for module, name in watched]
    clips = [np.random.default_rng(0).normal(0, 0.1, 480_000).astype(np.float32)] * 2
    found = measure.stages(model, clips, profile, tokens=3)
    assert [getattr(module, name) for module, name in watched] == functions
    assert list(found) == list(stages(work(profile)))
    # What is a difference of two times may be below 0 on a busy machine.
    timed = ("mel", "stem", "cross keys", "prefill", "steps", "rules", "words")
    assert all(found[name] > 0 for name in timed)
    encoded = model.encode(torch.randn(2, 80, 3000), [profile] * 2)
    parts = measure.step_parts(model, encoded, tokens=4)
    assert list(parts) == list(step(work(profile)))
    report = Found(model.info, work(profile, 2), Rates(1e11, 1e10), [(found, parts)])
    about, of_stages, of_step = tables(report)
    assert f"{profile.name} (" in about
    assert "| steps |" in of_stages
    assert "| words |" in of_stages
    assert "| aside |" in of_stages
    assert "| logits |" in of_step
    assert as_json(report)["stages"]["mel"]["seconds"] == [found["mel"]]


def test_a_function_that_is_not_called_any_more_is_noticed() -> None:
    with measure._watch(decoder, "join") as watched:
        pass
    with pytest.raises(AssertionError, match="not called any more"):
        measure._seen(watched)
