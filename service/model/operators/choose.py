"""Which operators a processor is served by: tried at start, for right answers and for speed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from service.model.operators.attention import Attend, by_head, fused
from service.model.operators.products import Dense, Pack, fbgemm, onednn, packed_for
from service.model.protocol import dtype_name

log = logging.getLogger(__name__)

WIDTH = 512  # of the trial, as whisper-base's
MANY, FEW = 250, 8  # rows: a sixth of a window's frames in the encoder, tokens in the decoder
FRAMES, HEADS, HEAD = 1500, 2, 64  # of attention
RUNS = 2
# To the largest value of the right answer.
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
CLOSE_IN_8_BITS = 4e-2  # 7 bits are 0.019 off, what overflows 0.116
# With VNNI products of 8 bits are summed in 32 bits; without, pairs of them in 16, which hold 63.
MOST_ACTIVATIONS = (127, 63)
# Eight bits have to be slower by so much than floats to be left alone: a trial beside other work
# may be wrong by a half, and what one start says in 8 bits the next one should.
MUCH_SLOWER = 1.5
FAILURES = (RuntimeError, AttributeError)  # an operator that is not there, or not for this


@dataclass(frozen=True, slots=True, eq=False)
class Operators:
    """What a processor is served by.

    `many`, `few`: pack products of many rows (frames, in the encoder) and of few (tokens, in the
    decoder). `dtype`: of what is computed; `weight_dtype`: of the products' weights;
    `cross_dtype`: of cross-attention's keys and values. `names`: what was chosen, for people.
    """

    many: Pack
    few: Pack
    attend: Attend
    dtype: torch.dtype
    weight_dtype: str
    cross_dtype: torch.dtype
    names: str = "torch's own"


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    name: str
    pack: Pack
    seconds: float


def plain_operators(dtype: torch.dtype) -> Operators:
    """torch's public ones: for a GPU, and the way back for any processor."""
    return Operators(Dense, Dense, fused, dtype, dtype_name(dtype), dtype)


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
        return _in_floats(torch.bfloat16 if _has_bfloat16() else torch.float32)
    return found


@cache
def steady_operators(kind: str) -> Operators | None:
    """Right ones in a fixed order, whichever are fastest: the same at every start.

    Of two that are about as fast `cpu_operators` takes one at one start and the other at the next,
    and what they round differently changes words. `kind`: int8, float32, bfloat16 or float16. None
    where none is right here.
    """
    if kind == "float16":
        return plain_operators(torch.float16)
    dtype = torch.float32 if kind == "int8" else getattr(torch, kind)
    found = [
        _eight_bits(twice=rows == FEW)
        if kind == "int8"
        else [each for each in reversed(_floats(rows)) if _is_right(each[1], dtype)]
        for rows in (MANY, FEW)
    ]
    if not all(found):
        return None
    (many, pack_many), (few, pack_few) = (some[0] for some in found)
    names = f"frames by {many}, tokens by {few}, attention fused"
    return Operators(pack_many, pack_few, fused, dtype, kind, dtype, names)


def _in_8_bits(asked: bool) -> Operators | None:
    """None where it is not right, or not `asked` for and much slower than float32."""
    # The decoder's activations do not bear 8 bits (docs/log.md), and its time is the weights'.
    many, few = (_fastest(_eight_bits(twice), rows) for rows, twice in ((MANY, False), (FEW, True)))
    if many is None or few is None:
        return None
    if not asked:
        floats = (_fastest(_floats(rows), rows) for rows in (MANY, FEW))
        pairs = zip((many, few), floats, strict=True)
        ratios = [ours.seconds / theirs.seconds for ours, theirs in pairs if theirs is not None]
        if sum(ratios) >= MUCH_SLOWER * len(ratios):
            return None
    return _operators(many, few, torch.float32, "int8")


def _in_floats(dtype: torch.dtype) -> Operators:
    many, few = (
        _fastest([c for c in _floats(rows) if _is_right(c[1], dtype)], rows, dtype)
        for rows in (MANY, FEW)
    )
    if many is None or few is None:
        log.warning("no product in %s is right on this processor", dtype_name(dtype))
        return plain_operators(dtype)
    return _operators(many, few, dtype, dtype_name(dtype))


def _operators(many: _Choice, few: _Choice, dtype: torch.dtype, weights: str) -> Operators:
    name, attend = _attention(dtype)
    cross_dtype = _cross_dtype(dtype)
    names = (
        f"frames by {many.name}, tokens by {few.name}, attention {name}, "
        f"cross-attention reads {dtype_name(cross_dtype)}"
    )
    return Operators(many.pack, few.pack, attend, dtype, weights, cross_dtype, names)


def _floats(rows: int) -> list[tuple[str, Pack]]:
    return [("torch", Dense), ("oneDNN", packed_for(rows))]


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
    rows, weights = _drawn(FEW, dtype)
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
    drawn_rows, drawn_weights = _drawn(FEW, torch.float32)
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


def _drawn(num_rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows and weights of a product, the same at every start."""
    draws = torch.Generator().manual_seed(0)
    rows = torch.randn(num_rows, WIDTH, generator=draws)
    weights = torch.randn(4 * WIDTH, WIDTH, generator=draws)
    return rows.to(dtype), weights.to(dtype)


def _fastest(
    candidates: Sequence[tuple[str, Pack]], num_rows: int, dtype: torch.dtype = torch.float32
) -> _Choice | None:
    rows, weights = _drawn(num_rows, dtype)
    choices = []
    for name, pack in candidates:
        try:
            product = pack(weights, None)
            choices.append(_Choice(name, pack, _seconds(lambda p=product: p(rows))))  # type: ignore[misc]
        except FAILURES:
            log.debug("%s cannot be used here", name, exc_info=True)
    return min(choices, key=lambda choice: choice.seconds, default=None)


def _attention(dtype: torch.dtype) -> tuple[str, Attend]:
    """torch's own, unless head by head is faster: where one head's matrix fits the cache, or the
    processor multiplies in bfloat16."""
    draws = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, HEADS, FRAMES, HEAD, generator=draws).to(dtype)
    ways: list[tuple[str, Attend, float]] = [("fused", fused, CLOSE[dtype])]
    if dtype == torch.float32:
        ways.append(("by head", by_head(dtype), CLOSE[dtype]))
    if _has_bfloat16():
        ways.append(("by head in bfloat16", by_head(torch.bfloat16), CLOSE[torch.bfloat16]))
    right = fused(query.float(), key.float(), value.float(), None)
    found = []
    for name, attend, share in ways:
        if _near(attend(query, key, value, None), right, share):
            found.append((_seconds(lambda a=attend: a(query, key, value, None)), name, attend))  # type: ignore[misc]
    if not found:
        return "fused", fused
    _, name, attend = min(found, key=lambda way: way[0])
    return name, attend


def _cross_dtype(dtype: torch.dtype) -> torch.dtype:
    """In bfloat16 keys and values are half as much to read, where the processor has products for
    them; elsewhere torch's take several times as long."""
    if not _has_bfloat16():
        return dtype
    draws = torch.Generator().manual_seed(0)
    query = torch.randn(FEW, HEADS, 1, HEAD, generator=draws)
    keys = torch.randn(FEW, HEADS, HEAD, FRAMES, generator=draws)

    def seconds(tried: torch.dtype) -> float:
        one, many = query.to(tried), keys.to(tried)
        return _seconds(lambda: (one @ many).softmax(-1) @ many.transpose(-1, -2))

    return min(dict.fromkeys((dtype, torch.bfloat16)), key=seconds)


def _has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16, by its own account."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)


def _seconds(run: Callable[[], Tensor]) -> float:
    """The least of a few, after one that counts for nothing."""
    run()
    took = []
    for _ in range(RUNS):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return min(took)
