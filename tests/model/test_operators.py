"""The products and the attention that processors are served by, against plain arithmetic."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from service.decode.packed import empty_cache
from service.errors import ConfigError
from service.model import decoder
from service.model.checkpoint import load_checkpoint
from service.model.operators import bags, choose, products
from service.model.operators.attention import by_head
from service.model.operators.bags import BYTE, Bag, Bags, ByteBags, FloatBags
from service.model.operators.choose import cpu_operators, has_bfloat16, plain_operators
from service.model.operators.products import (
    FEW_WEIGHTS,
    Dense,
    Half,
    Pack,
    by_size,
    fbgemm,
    half,
    onednn,
    packed_for,
)

# 63 is right on every processor: what 127 does without VNNI is a test of its own.
EIGHT = {
    f"{make.__name__}, {'twice' if twice else 'once'}": make(63, twice)
    for make in (fbgemm, onednn)
    for twice in (False, True)
}
PACKS = {"dense": Dense, "packed": packed_for(8), "half": half(Dense, exact=False), **EIGHT}
SHAPES = [(3,), (1, 1), (5, 7), (1, 100), (2, 0)]  # of what comes before a row


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """What is right here is found once in a process."""
    cpu_operators.cache_clear()
    yield
    cpu_operators.cache_clear()


def off(found: Tensor, right: Tensor) -> float:
    return float((found - right).norm() / right.norm())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PACKS)
@torch.inference_mode()
def test_every_product_is_the_plain_one(name: str, shape: tuple[int, ...]) -> None:
    weight, bias = drawn(96, 64), drawn(96, seed=1)
    x = drawn(*shape, 64, seed=2)
    for given in (bias, None):
        product = PACKS[name](weight, given)
        found, right = product(x), F.linear(x, weight, given)
        assert found.shape == right.shape
        assert product.shape == (96, 64)
        # Of weights in 8 bits alone: 0.006.
        eight = 0.008 if "twice" in name else 0.02
        most = {"dense": 1e-6, "packed": 1e-5, "half": 5e-4}.get(name, eight)
        assert not right.numel() or off(found, right) < most


@pytest.mark.parametrize("name", EIGHT)
@torch.inference_mode()
def test_a_row_does_not_depend_on_the_rows_beside_it(name: str) -> None:
    product = EIGHT[name](drawn(40, 64), drawn(40, seed=1))
    rows = drawn(130, 64, seed=2)
    rows[7] *= 1000
    together = product(rows)
    for number in (0, 7, 129):
        assert torch.equal(product(rows[number : number + 1])[0], together[number])


@pytest.mark.parametrize("name", ["packed", "half"])
@torch.inference_mode()
def test_nor_does_a_long_row_that_is_alone(name: str) -> None:
    product = PACKS[name](drawn(512, 2048), drawn(512, seed=1))
    rows = drawn(31, 1, 2048, seed=2)
    together = product(rows)
    for number in (1, 2, 3, 8):
        assert torch.equal(product(rows[:number]), together[:number])


@pytest.mark.skipif(not has_bfloat16(), reason="this processor does not multiply in bfloat16")
@torch.inference_mode()
def test_nor_in_bfloat16() -> None:
    """Rounded, few of its values show it: of some 40,000 about ten."""
    product = packed_for(8)(drawn(1024, 4096).bfloat16() / 20, None)
    rows = drawn(40, 1, 4096, seed=2).bfloat16()
    together = product(rows)
    for number in range(40):
        assert torch.equal(product(rows[number : number + 1]), together[number : number + 1])


@pytest.mark.parametrize("name", EIGHT)
@torch.inference_mode()
def test_zeros_give_the_bias_and_what_is_no_number_stays_in_its_row(name: str) -> None:
    bias = drawn(40)
    product = EIGHT[name](drawn(40, 64), bias)
    rows = torch.zeros(3, 64)
    rows[1, 5] = torch.nan
    found = product(rows)
    assert torch.equal(found[[0, 2]], bias.expand(2, -1))
    assert found[1].isnan().all()


@torch.inference_mode()
def test_what_rounding_left_is_multiplied_too() -> None:
    """A large value in a row leaves few steps to the others."""
    weight, rows = drawn(200, 512), drawn(8, 512, seed=1)
    rows[:, 0] = 60.0
    right = rows @ weight.T
    exact = weight.clone()
    once, twice = (fbgemm(63, each)(exact, None)(rows) for each in (False, True))
    assert off(once, right) > 3 * off(twice, right)


@torch.inference_mode()
def test_eight_bits_take_a_quarter_of_the_memory() -> None:
    weight = drawn(40, 64)
    assert fbgemm(63, True)(weight, None).nbytes * 4 == weight.nbytes == Dense(weight, None).nbytes


@torch.inference_mode()
def test_few_weights_of_the_decoder_stay_finer_than_8_bits() -> None:
    """Quantising a row takes longer than reading them."""
    pack, width = by_size(half(packed_for(8), exact=False), fbgemm(63, True)), 1024
    few, more = (pack(drawn(rows, width), None) for rows in (64, FEW_WEIGHTS // width + 1))
    assert few.nbytes == 2 * 64 * width
    assert more.nbytes == FEW_WEIGHTS + width
    x = drawn(3, width, seed=1)
    assert off(few(x), x @ drawn(64, width).T) < 5e-4


@torch.inference_mode()
def test_what_float16_holds_is_exact_in_it_and_the_rest_is_left_to_others() -> None:
    published, x = drawn(96, 64).half().float(), drawn(5, 64, seed=2)
    product = half(Dense, exact=True)(published, drawn(96, seed=1))
    assert isinstance(product, Half)
    assert off(product(x), F.linear(x, published, drawn(96, seed=1))) < 1e-6
    rounded = published * 1.0001
    assert isinstance(half(Dense, exact=True)(rounded, None), Dense)
    assert isinstance(half(Dense, exact=False)(rounded, None), Half)
    for too_large in (70_000.0, torch.nan):
        published[3, 4] = too_large
        assert isinstance(half(Dense, exact=False)(published, None), Dense)


@torch.inference_mode()
def test_weights_in_float16_leave_what_is_no_number_in_its_row() -> None:
    product = half(Dense, exact=True)(drawn(40, 64).half().float(), drawn(40))
    rows = drawn(3, 64)
    rows[1, 5] = torch.nan
    found = product(rows)
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


@torch.inference_mode()
def test_float32_serves_published_weights_as_they_are() -> None:
    operators = cpu_operators("float32")
    assert operators is not None
    weight, x = drawn(96, 512), drawn(3, 512, seed=1)
    for given in (weight, weight.half().float()):
        assert off(operators.few(given, None)(x), x @ given.T) < 1e-6


@torch.inference_mode()
def test_an_operator_that_overflows_is_found_out() -> None:
    def overflows(weight: Tensor, bias: Tensor | None) -> Dense:
        """Right for what is drawn, and short of the largest sums."""

        class Short(Dense):
            def __call__(self, x: Tensor) -> Tensor:
                return super().__call__(x).clamp(-300, 300)

        return Short(weight, bias)

    assert choose._holds(Dense)
    assert not choose._holds(overflows)


@pytest.mark.skipif(torch.cpu._is_vnni_supported(), reason="VNNI adds products of 8 bits in 32")
@torch.inference_mode()
def test_without_vnni_activations_have_seven_bits() -> None:
    assert not choose._holds(fbgemm(127, False))
    assert choose._holds(fbgemm(63, False))


def missing(most: int, twice: bool) -> Pack:
    def pack(weight: Tensor, bias: Tensor | None) -> Dense:
        raise AttributeError("no such operator")

    return pack


@torch.inference_mode()
def test_without_an_operator_from_float16_the_others_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "half", lambda otherwise, *, exact: missing(0, twice=False))
    for kind in ("int8", "float32"):
        found = cpu_operators(kind)
        assert found is not None
        assert "from float16" not in found.names
        assert (
            off(found.few(drawn(96, 512), None)(drawn(3, 512)), drawn(3, 512) @ drawn(96, 512).T)
            < 0.02
        )


@torch.inference_mode()
def test_what_torch_has_not_under_its_private_names_is_done_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacks(name: str) -> None:
        raise AttributeError(name)

    for module in (products, bags):
        monkeypatch.setattr(module, "direct", lacks)
    found = cpu_operators("auto")
    assert found is not None
    assert "FBGEMM" not in found.names
    assert found.cross.name == "float32"


@torch.inference_mode()
def test_without_operators_in_8_bits_floats_are_served_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(choose, "fbgemm", missing)
    monkeypatch.setattr(choose, "onednn", missing)
    with caplog.at_level(logging.WARNING, logger="service.model.operators.choose"):
        found = cpu_operators("auto")
    assert found is not None
    assert found.weight_dtype in ("float32", "bfloat16")
    assert len(caplog.records) == 1
    assert cpu_operators("int8") is None
    with pytest.raises(ConfigError, match="int8"):
        load_checkpoint("whisper-tiny", device="cpu", dtype="int8")


@torch.inference_mode()
def test_eight_bits_that_are_slower_are_served_to_whom_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seconds(runs: Sequence[Callable[[], Tensor]]) -> list[float]:
        ours = ["EightBit" in str(run) for run in runs]
        once = {run.args[0].shape[0] for run in runs if isinstance(run, partial)} & slow_rows
        return [slower if eight and once else 1.0 for eight in ours]

    monkeypatch.setattr(choose, "_seconds", seconds)
    slow_rows = {choose.MANY, choose.FEW}
    slower = 2.0  # as beside other work
    noisy = cpu_operators("auto")
    assert noisy is not None
    assert noisy.weight_dtype == "int8"
    slower, slow_rows = 9.0, {choose.MANY}  # those of frames alone
    cpu_operators.cache_clear()
    floats = cpu_operators("auto")
    eight = cpu_operators("int8")
    assert floats is not None
    assert floats.weight_dtype != "int8"
    assert eight is not None
    assert eight.weight_dtype == "int8"


@pytest.mark.parametrize(("other", "chosen"), [(0.75, "first"), (0.65, "other")])
def test_the_first_stays_unless_another_is_clearly_faster(other: float, chosen: str) -> None:
    choices = [choose._Choice("first", Dense, 1.0), choose._Choice("other", Dense, other)]
    assert choose._fastest(choices).name == chosen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.inference_mode()
def test_attention_head_by_head_is_the_fused_one(dtype: torch.dtype) -> None:
    query, key, value = drawn(3, 2, 4, 50, 16)
    right = F.scaled_dot_product_attention(query, key, value)
    close = 1e-5 if dtype == torch.float32 else 0.02
    assert_close(by_head(dtype)(query, key, value, None), right, atol=close, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("bags", [FloatBags(torch.bfloat16), ByteBags()], ids=["bfloat16", BYTE])
def test_cross_attention_may_read_less(mini_folder: Path, bags: Bags) -> None:
    """Near the right answer; a processor that is made for it is not needed."""
    plain = plain_operators(torch.float32)
    states = drawn(1, 100, 128)
    tokens = torch.tensor([[50258, 50259, 50359]])
    logits, sizes = [], []
    for operators in (plain, replace(plain, cross=bags)):
        loaded = load_checkpoint(str(mini_folder), device="cpu", operators=operators)
        weights = loaded.weights.decoder
        cache = empty_cache(weights)
        decoder.join(weights, cache, states)
        logits.append(decoder.step(weights, tokens, cache))
        sizes.append(cache.kept.nbytes)
    assert 0 < off(logits[1], logits[0]) < 0.1
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.parametrize("bags", [FloatBags(torch.float32), ByteBags()], ids=["float32", BYTE])
def test_bags_of_any_size_are_summed_side_by_side(bags: Bags) -> None:
    values, weights = drawn(40, 16), drawn(40)
    bag = Bag(torch.arange(40, dtype=torch.int32), torch.tensor([0, 3, 39], dtype=torch.int32))
    found = bags.sums(bags.rows(values), bag, weights)
    scaled = values * weights[:, None]
    right = torch.stack([some.sum(0) for some in (scaled[:3], scaled[3:39], scaled[39:])])
    assert off(found, right) < (1e-6 if bags.name == "float32" else 0.01)
    table = bags.new_table(40, 16, torch.device("cpu"))
    assert table.shape == bags.rows(values).shape
    assert table.nbytes == 40 * bags.row_bytes(16)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_in_8_bits_that_is_not_finite_does_not_pass_for_one(bad: float) -> None:
    values = drawn(3, 16)
    values[1, 5] = bad
    bags, index = ByteBags(), torch.arange(3, dtype=torch.int32)
    found = bags.sums(bags.rows(values), Bag(index, index), torch.ones(3))
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


def test_a_trial_is_one_thread_in_its_own_time() -> None:
    """Other work on the machine changes nothing in what is chosen."""
    threads = list[int]()

    def kept_from_its_core() -> torch.Tensor:
        time.sleep(0.02)
        return torch.zeros(())

    def busy() -> torch.Tensor:
        threads.append(torch.get_num_threads())
        until = time.thread_time() + 0.004
        while time.thread_time() < until:
            pass
        return torch.zeros(())

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        slept, took = choose._seconds([kept_from_its_core, busy])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert slept < 0.004 <= took
    assert set(threads) == {1}
