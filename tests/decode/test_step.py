"""The step waits for the device in one place, and tells it nothing in a step after another.

Seen without a GPU: a tensor on torch's meta device has a shape and no values, so whoever asks it
for one is found out.
"""

from __future__ import annotations

import warnings
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from service.decode.packed import empty_cache
from service.decode.rules import Said, make_rules
from service.decode.step import Ways, step
from service.families.whisper import Whisper
from service.model import decoder
from service.model.checkpoint import load_checkpoint
from service.profiles import BUILT_IN
from service.types import DecodeOptions
from tests.checkpoints import load_plain
from tests.windows import noise


def on_a_device(part: Any) -> Any:
    """Weights or rules without values."""
    if isinstance(part, Tensor):
        return part.to("meta")
    if isinstance(part, list | tuple):
        return type(part)(on_a_device(one) for one in part)
    if is_dataclass(part) and not isinstance(part, type):
        names = [field.name for field in fields(part)]
        return replace(part, **{name: on_a_device(getattr(part, name)) for name in names})
    return part


def tell(*given: object, **more: object) -> Tensor:
    """In the place of `torch.tensor`, which is how the device is told numbers."""
    raise AssertionError("the device was told something")


def test_a_step_waits_once_and_one_after_another_tells_nothing(
    mini_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load_plain(str(mini_folder))
    rules = make_rules(checkpoint.vocabulary, torch.device("cpu"))
    width = checkpoint.weights.dims.d_model
    with torch.inference_mode():
        weights, rules = on_a_device(checkpoint.weights.decoder), on_a_device(rules)
        cache = empty_cache(weights)
        for num_windows, kept in ((2, 750), (1, 1500)):
            states = torch.empty(num_windows, kept, width, device="meta")
            decoder.join(weights, cache, states)
        number = torch.empty(3, dtype=torch.int64, device="meta")
        ways = Ways({1: torch.empty_like(rules.bias_KV)}, {})
        chosen = step(weights, cache, rules, number[:, None], Said(*[number] * 3), ways)

        monkeypatch.setattr(torch, "tensor", tell)
        for _ in range(2):
            tokens_B1 = chosen.token_B[:, None]
            chosen = step(weights, cache, rules, tokens_B1, chosen.said, ways)
        assert chosen.token_B.is_meta
        with pytest.raises(NotImplementedError):
            chosen.to_host()
    assert cache.lengths == [3, 3, 3]


def test_windows_that_go_on_together_tell_the_device_nothing(
    mini_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Whisper(load_plain(str(mini_folder)))
    encoded = model.encode(noise(2), [BUILT_IN["dense"]] * 2)
    batch = model.new_decode_batch()
    batch.join([1, 2], encoded, [DecodeOptions("en")] * 2)
    batch.step()
    monkeypatch.setattr(torch, "tensor", tell)
    batch.step()
    batch.step()
    assert len(batch) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_step_on_a_gpu_waits_once(mini_folder: Path) -> None:
    model = Whisper(load_checkpoint(str(mini_folder), "cuda", "float16"))
    batch = model.new_decode_batch()
    encoded = model.encode(noise(4).cuda(), [BUILT_IN["dense"], BUILT_IN["fast"]] * 2)
    batch.join([1, 2, 3, 4], encoded, [DecodeOptions("en")] * 4)
    batch.step()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            batch.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(batch) == 4
    assert len([wait for wait in waits if "synchroniz" in str(wait.message)]) <= 1
