"""Which operators a processor is served by: tried at start, for right answers and for speed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor

from service.model.operators.attention import Attend, by_head, fused
from service.model.operators.bags import Bag, Bags, ByteBags, FloatBags
from service.model.operators.products import (
    Dense,
    Pack,
    by_size,
    fbgemm,
    half,
    onednn,
    packed_for,
)
from service.model.protocol import dtype_name

log = logging.getLogger(__name__)

WIDTH = 512  # of the trial, as whisper-base's
MANY, FEW = 250, 8  # rows: a sixth of a window's frames in the encoder, tokens in the decoder
FRAMES, HEADS, HEAD = 1500, 2, 64  # of attention
BAGS = 384  # a dense window's, by head and block, of a layer
RUNS = 3
# To the largest value of the right answer.
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
CLOSE_IN_8_BITS = 4e-2  # 7 bits are 0.019 off, what overflows 0.116
# With VNNI products of 8 bits are summed in 32 bits; without, pairs of them in 16, which hold 63.
MOST_ACTIVATIONS = (127, 63)
# Eight bits have to be slower by so much than floats to be left alone. Where a processor has no
# instructions for them they take a hundred times as long; beside other work a trial may take
# twice as long as it should, and what one start says in 8 bits the next one should.
MUCH_SLOWER = 3
# What comes first in order stays unless another takes less than this of its time: of two that are
# about as fast each start would take another, and what they round differently changes words.
CLEARLY_FASTER = 0.7
FAILURES = (RuntimeError, AttributeError)  # an operator that is not there, or not for this


@dataclass(frozen=True, slots=True, eq=False)
class Operators:
    """What a processor is served by.

    `many`, `few`: pack products of many rows (frames, in the encoder) and of few (tokens, in the
    decoder). `dtype`: of what is computed; `weight_dtype`: of the products' weights;
    `cross`: how cross-attention's keys and values are held. `names`: what was chosen, for people.
    """

    many: Pack
    few: Pack
    attend: Attend
    dtype: torch.dtype
    weight_dtype: str
    cross: Bags
    names: str = "torch's own"


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    name: str
    pack: Pack
    seconds: float


def plain_operators(dtype: torch.dtype) -> Operators:
    """torch's public ones: for a GPU, and the way back for any processor."""
    return Operators(Dense, Dense, fused, dtype, dtype_name(dtype), FloatBags(dtype))


@cache
def cpu_operators(kind: str) -> Operators | None:
    """The fastest of the right ones on this processor.

    `kind`: float32, bfloat16 or float16; int8: activations in float32; auto: int8 where that is
    right and not much slower than float32, else bfloat16 where the processor has it, else
    float32. None where int8 is asked for, and no operator for it is right here. Tried once in a
    process.
    """
    if kind == "float16":
        return plain_operators(torch.float16)
    if kind in ("float32", "bfloat16"):
        return _in_floats(torch.float32 if kind == "float32" else torch.bfloat16)
    found = _in_8_bits(asked=kind == "int8")
    if found is None and kind == "auto":
        log.warning("8 bits are not right, or much slower, on this processor: floats are served")
        return _in_floats(torch.bfloat16 if has_bfloat16() else torch.float32)
    return found


@cache
def steady_operators(kind: str) -> Operators | None:
    """Right ones in a fixed order, whichever are fastest: the same at every start.

    `cpu_operators` goes by a clock, which other work disturbs, and what two of them round
    differently changes words. `kind`: int8, float32, bfloat16 or float16. None
    where none is right here.
    """
    if kind == "float16":
        return plain_operators(torch.float16)
    dtype = torch.float32 if kind == "int8" else getattr(torch, kind)
    eight = kind == "int8"
    found = [
        _eight_bits(twice=rows == FEW) if eight else _steady_floats(rows, dtype)
        for rows in (MANY, FEW)
    ]
    if not all(found):
        return None
    (many, pack_many), (few, pack_few) = (some[0] for some in found)
    if eight:
        small, pack_small = (*_halves(FEW, dtype, exact=False), *_steady_floats(FEW, dtype))[0]
        few, pack_few = f"{small}, large ones by {few}", by_size(pack_small, pack_few)
    cross = _cross(kind, timed=False)
    names = f"frames by {many}, tokens by {few}, attention fused, cross-attention in {cross.name}"
    return Operators(pack_many, pack_few, fused, dtype, kind, cross, names)


def _steady_floats(rows: int, dtype: torch.dtype) -> list[tuple[str, Pack]]:
    return [*_halves(rows, dtype, exact=True), *reversed(_floats(rows, dtype))]


def _in_8_bits(asked: bool) -> Operators | None:
    """None where it is not right, or not `asked` for and much slower than float32."""
    found = []
    # The decoder's activations do not bear 8 bits (docs/log.md), and its time is the weights'.
    for rows, twice in ((MANY, False), (FEW, True)):
        halves = _halves(rows, torch.float32, exact=False)
        candidates = [_floats(rows, torch.float32), _eight_bits(twice), halves]
        floats, eight, by_half = _try(candidates, rows, torch.float32)
        if not eight or not floats:
            return None
        found.append((floats, eight, by_half))
    ratios = [_fastest(eight).seconds / _fastest(floats).seconds for floats, eight, _ in found]
    if not asked and max(ratios) >= MUCH_SLOWER:
        return None
    many, large = (_fastest(eight) for _, eight, _ in found)
    floats, eight, by_half = found[1]
    few = _by_size(_fastest([*by_half, *floats, *eight]), large)
    return _operators(many, few, torch.float32, "int8")


def _by_size(small: _Choice, large: _Choice) -> _Choice:
    name = small.name if small is large else f"{small.name}, large ones by {large.name}"
    return replace(large, name=name, pack=by_size(small.pack, large.pack))


def _in_floats(dtype: torch.dtype) -> Operators:
    found = [
        _try([_halves(rows, dtype, exact=True), _floats(rows, dtype)], rows, dtype)
        for rows in (MANY, FEW)
    ]
    if not all(plain for _, plain in found):
        log.warning("no product in %s is right on this processor", dtype_name(dtype))
        return plain_operators(dtype)
    many, few = (_fastest([*by_half, *plain]) for by_half, plain in found)
    return _operators(many, few, dtype, dtype_name(dtype))


def _operators(many: _Choice, few: _Choice, dtype: torch.dtype, weights: str) -> Operators:
    name, attend = _attention(dtype, exact=weights == "float32")
    cross = _cross(weights, timed=True)
    names = (
        f"frames by {many.name}, tokens by {few.name}, attention {name}, "
        f"cross-attention in {cross.name}"
    )
    return Operators(many.pack, few.pack, attend, dtype, weights, cross, names)


def _floats(rows: int, dtype: torch.dtype) -> list[tuple[str, Pack]]:
    able: list[tuple[str, Pack]] = [("torch", Dense), ("oneDNN", packed_for(rows))]
    return [one for one in able if _is_right(one[1], dtype)]


def _halves(rows: int, dtype: torch.dtype, *, exact: bool) -> list[tuple[str, Pack]]:
    """For few rows, where reading weights is what takes the time: with many, float32 is as fast.

    `exact`: weights that float16 would round stay in float32.
    """
    if rows != FEW or dtype != torch.float32:
        return []
    pack = half(packed_for(rows), exact=exact)
    return [("FBGEMM from float16", pack)] if _is_right(pack, torch.float32) else []


def _eight_bits(twice: bool) -> list[tuple[str, Pack]]:
    """Each operator with the finest steps of activations with which it is right here."""
    found = []
    for name, make in (("FBGEMM", fbgemm), ("oneDNN", onednn)):
        for most in MOST_ACTIVATIONS:
            pack = make(most, twice)
            if _holds(pack):
                found.append((f"{name} in {(2 * most + 1).bit_length()} bits", pack))
                break
    return found


def _is_right(pack: Pack, dtype: torch.dtype) -> bool:
    rows, weights = _drawn(FEW, dtype, WIDTH)
    try:
        found = pack(weights, None)(rows)
    except FAILURES:
        return False
    return _near(found, rows.double() @ weights.double().T, CLOSE[dtype])


def _holds(pack: Pack) -> bool:
    """Whether neither the largest values overflow, nor drawn ones are far from the right answer."""
    ones = torch.ones(FEW, WIDTH)
    ones[1::2, ::2] = -1
    weights = ones[:4].repeat(4, 1)
    drawn_rows, drawn_weights = _drawn(FEW, torch.float32, WIDTH)
    try:
        whole = pack(weights, None)(ones)
        drawn = pack(drawn_weights, None)(drawn_rows)
    except FAILURES:
        return False
    right = drawn_rows.double() @ drawn_weights.double().T
    return _near(whole, ones.double() @ weights.double().T, CLOSE[torch.float32]) and _near(
        drawn, right, CLOSE_IN_8_BITS
    )


def _near(found: Tensor, right: Tensor, share: float) -> bool:
    return bool((found.double() - right).abs().max() <= share * right.abs().max())


def _drawn(num_rows: int, dtype: torch.dtype, num_out: int = 4 * WIDTH) -> tuple[Tensor, Tensor]:
    """Rows and weights of a product, the same at every start; float16 holds the weights."""
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn(num_rows, WIDTH, generator=draws)
    weights = torch.randn(num_out, WIDTH, generator=draws).half()
    return rows.to(dtype), weights.to(dtype)


def _try(
    candidates: Sequence[Sequence[tuple[str, Pack]]], num_rows: int, dtype: torch.dtype
) -> list[list[_Choice]]:
    """How long each of every kind takes that can be used here, all of them in turns."""
    rows, weights = _drawn(num_rows, dtype)
    able: list[tuple[int, str, Pack]] = []
    runs: list[Callable[[], Tensor]] = []
    for kind, some in enumerate(candidates):
        for name, pack in some:
            try:
                product = pack(weights, None)
                product(rows)
            except FAILURES:
                log.debug("%s cannot be used here", name, exc_info=True)
                continue
            able.append((kind, name, pack))
            runs.append(partial(product, rows))
    tried: list[list[_Choice]] = [[] for _ in candidates]
    for (kind, name, pack), took in zip(able, _seconds(runs), strict=True):
        tried[kind].append(_Choice(name, pack, took))
    return tried


def _fastest(choices: Sequence[_Choice]) -> _Choice:
    """The first, unless another is clearly faster."""
    best = min(choices, key=lambda choice: choice.seconds)
    return best if best.seconds < CLEARLY_FASTER * choices[0].seconds else choices[0]


def _attention(dtype: torch.dtype, *, exact: bool) -> tuple[str, Attend]:
    """torch's own, unless head by head is clearly faster, where one head's matrix fits the cache.
    First, if it need not be `exact`, head by head in what the processor multiplies, bfloat16."""
    draws = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, HEADS, FRAMES, HEAD, generator=draws).to(dtype)
    ways: list[tuple[str, Attend, float]] = [("fused", fused, CLOSE[dtype])]
    if dtype == torch.float32:
        ways.append(("by head", by_head(dtype), CLOSE[dtype]))
    if has_bfloat16() and not exact:
        ways.insert(0, ("by head in bfloat16", by_head(torch.bfloat16), CLOSE[torch.bfloat16]))
    right = fused(query.float(), key.float(), value.float(), None)
    able = [
        (name, attend)
        for name, attend, share in ways
        if _near(attend(query, key, value, None), right, share)
    ]
    took = _seconds([partial(attend, query, key, value, None) for _, attend in able])
    if not able:
        return "fused", fused
    least = min(took)
    return able[took.index(least) if least < CLEARLY_FASTER * took[0] else 0]


def _cross(kind: str, *, timed: bool) -> Bags:
    """In 8 bits unless in float32: a quarter to hold and to read. Not where they are wrong, or so
    much slower that a processor has no kernel for them."""
    exact, eight = FloatBags(torch.float32), ByteBags()
    if kind == "float32":
        return exact
    rows, _ = _drawn(BAGS * HEAD, torch.float32, 1)
    values, weights = rows[:, :HEAD].contiguous(), rows[:, HEAD].contiguous()
    index = torch.arange(len(values), dtype=torch.int32)
    bag = Bag(index, index[::HEAD].contiguous())
    try:
        found = eight.sums(eight.rows(values), bag, weights)
    except FAILURES:
        return exact
    right = exact.sums(exact.rows(values), bag, weights)
    if not _near(found, right, CLOSE_IN_8_BITS):
        return exact
    if timed:
        runs = [partial(each.sums, each.rows(values), bag, weights) for each in (exact, eight)]
        took = _seconds(runs)
        if took[1] > MUCH_SLOWER * took[0]:
            return exact
    return eight


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16, by its own account."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


def _seconds(runs: Sequence[Callable[[], Tensor]]) -> list[float]:
    """The least that each took of a few times in turns, after once that counts for nothing.

    By one thread, and in its own time on the processor: what else the machine does is not counted,
    and a start beside other work chooses what a quiet one does. Several threads would wait for the
    one that is kept from its core, most where a product has many small parts.
    """
    took: list[list[float]] = [[] for _ in runs]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(1 + RUNS):
            for times, run in zip(took, runs, strict=True):
                began = time.thread_time()
                run()
                times.append(time.thread_time() - began)
    finally:
        torch.set_num_threads(num_threads)
    return [min(times[1:]) for times in took]
