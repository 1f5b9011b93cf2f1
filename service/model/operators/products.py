"""Matrix products with fixed weights: plain, packed for the processor, or in 8 bits.

All that a layer knows of its weights is that they can be called. What packs them is chosen at
start (`choose`), and is private to torch: `mkldnn` and `onednn` are oneDNN, `quantized` is FBGEMM.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_WEIGHT = 127  # of a row quantised symmetrically
ROWS_AT_ONCE = 2048
TINY = 1e-30  # a row of zeros is divided by this
MOST_HALF = 65504.0  # the largest number in float16
# For a few rows and no more weights than this, quantising rows takes longer than reading float16.
FEW_WEIGHTS = 4 * 1024 * 1024


@cache
def direct(name: str) -> Callable[..., Tensor]:
    """One of torch's private `quantized` operators as torch calls it itself, without a look at the
    arguments that takes a few microseconds: a decode step has dozens of these calls.

    Raises AttributeError where there is none. It is asked for at the call, and not once for all:
    what is not there must keep nobody from starting.
    """
    operator: Callable[..., Tensor] = getattr(torch.ops.quantized, name).default._op
    return operator


class Product(Protocol):
    """`x @ weight.T + bias`: (..., in) -> (..., out), in the type of x."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""

    @property
    def nbytes(self) -> int:
        """Of the weights as they are held."""

    def __call__(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True, eq=False)
class Wrapped:
    """A product that something is done around."""

    product: Product

    @property
    def shape(self) -> tuple[int, int]:
        return self.product.shape

    @property
    def nbytes(self) -> int:
        return self.product.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return self.product(x)


# (out, in) weights and their bias, floating point -> the product. What was given is let go.
Pack = Callable[[Tensor, Tensor | None], Product]


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """weight: (out, in); bias: (out,) or None."""

    weight: Tensor
    bias: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        return (self.weight.shape[0], self.weight.shape[1])

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """The same product, its weights in the blocks that oneDNN's kernels read.

    It sums a single row in another order than the same row among others, where rows are long and
    the processor has AVX-512. So one goes as two: a window says alone what it says beside others.
    """

    weight: Tensor
    bias: Tensor | None
    shape: tuple[int, int]
    nbytes: int

    def __call__(self, x: Tensor) -> Tensor:
        if x.numel() == x.shape[-1]:
            return self._of(torch.cat([x, x]))[:1]
        return self._of(x)

    def _of(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, "none", [], ""
        )
        return product


def packed_for(num_rows: int) -> Pack:
    """Packs for products of about so many rows."""

    def pack(weight: Tensor, bias: Tensor | None) -> Packed:
        blocks = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), num_rows)
        return Packed(blocks, bias, (weight.shape[0], weight.shape[1]), weight.nbytes)

    return pack


@dataclass(frozen=True, slots=True, eq=False)
class Half:
    """Weights in float16, everything else in float32: half as much to read, and one call.

    `held`: weights and bias in the blocks that FBGEMM's kernels read.
    """

    held: Any
    shape: tuple[int, int]
    nbytes: int

    def __call__(self, x: Tensor) -> Tensor:
        return direct("linear_dynamic_fp16")(x, self.held)


def half(otherwise: Pack, *, exact: bool) -> Pack:
    """Weights in float16, as Whisper's are published; `otherwise` those that float16 does not hold,
    or, where it has to be `exact`, would round."""

    def pack(weight: Tensor, bias: Tensor | None) -> Product:
        rounded = weight.half()
        if not bool((rounded.abs() <= MOST_HALF).all()) or (
            exact and not torch.equal(rounded.to(weight.dtype), weight)
        ):
            return otherwise(weight, bias)
        held = torch.ops.quantized.linear_prepack_fp16(
            weight.float(), None if bias is None else bias.float()
        )
        return Half(held, (weight.shape[0], weight.shape[1]), rounded.nbytes)

    return pack


@dataclass(frozen=True, slots=True, eq=False)
class EightBit:
    """Weights in 8 bits, a scale for each row of them; activations too, when they come.

    `multiply` takes rows in steps of their own scale, from -`most` to `most`, rounds them, and
    gives float32 products with the weights as they are meant: the rows' scales are multiplied in
    here. `finer`: what rounding left over is multiplied as well, in steps so many times finer,
    which is activations in twice the bits and costs little where reading the weights is what
    takes the time; None: it is not. Both are tensors without dimensions, because torch makes one
    of a number at every call. A row's result does not depend on the rows beside it.
    """

    multiply: Callable[[Tensor], Tensor]
    most: Tensor
    finer: Tensor | None
    bias: Tensor | None
    shape: tuple[int, int]
    nbytes: int

    def __call__(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).float()
        scale = _largest(rows).clamp_min_(TINY).div_(self.most)
        steps = rows / scale
        if self.finer is None:
            product = self.multiply(steps)
        else:
            left = (steps - steps.round()).mul_(self.finer)
            both = self.multiply(torch.cat([steps, left]))
            product = both[len(rows) :].div_(self.finer).add_(both[: len(rows)])
        if self.bias is None:
            product.mul_(scale)
        else:
            product = torch.addcmul(self.bias, product, scale)
        return product.to(x.dtype).view(*x.shape[:-1], self.shape[0])


def _largest(rows: Tensor) -> Tensor:
    """The largest magnitude of each row, (rows, 1); NaN where a row has one."""
    if len(rows) < 64:  # fewer calls; below this they are what takes the time
        return rows.abs().amax(-1, keepdim=True)
    return torch.maximum(rows.amax(-1, keepdim=True), rows.amin(-1, keepdim=True).neg_())


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(out, in) -> int8, symmetric, and float32 scales (out,), row by row."""
    scale = weight.abs().amax(1).float().clamp_min_(TINY).div_(MOST_WEIGHT)
    values = torch.empty(weight.shape, dtype=torch.int8)
    # Part by part: an embedding in float32, twice, would be the most that a start takes.
    for first in range(0, len(weight), ROWS_AT_ONCE):
        some = slice(first, first + ROWS_AT_ONCE)
        values[some] = (weight[some].float() / scale[some, None]).round_()
    return values, scale


def fbgemm(most: int, twice: bool) -> Pack:
    """8 bits by FBGEMM, activations from -`most` to `most`.

    Without VNNI its kernels add two products of 8 bits in 16, which hold them for 63.
    """

    def pack(weight: Tensor, bias: Tensor | None) -> EightBit:
        values, scale = quantise(weight)
        held = _fbgemm_packed(values, scale)

        def multiply(rows: Tensor) -> Tensor:
            name = "linear_with_input_q_dq_qweight_dq_output_fp32"
            return direct(name)(rows, 1.0, most + 1, held)

        return _eight_bit(multiply, most, twice, bias, values)

    return pack


def _fbgemm_packed(values: Tensor, scale: Tensor) -> Any:
    zeros = torch.zeros(len(scale), dtype=torch.long)
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            # Quantised tensors are said to be replaced; the operator beneath them is not.
            warnings.simplefilter("ignore")
            whole = torch._make_per_channel_quantized_tensor(values, scale.double(), zeros, 0)
        return torch.ops.quantized.linear_prepack(whole, None)
    finally:
        torch.backends.quantized.engine = before


def onednn(most: int, twice: bool) -> Pack:
    """8 bits by oneDNN, activations from -`most` to `most`."""

    def pack(weight: Tensor, bias: Tensor | None) -> EightBit:
        values, scale = quantise(weight)
        held = torch.ops.onednn.qlinear_prepack(values, None)
        zeros = torch.zeros(len(scale), dtype=torch.long)
        product = torch.ops.onednn.qlinear_pointwise.default

        def multiply(rows: Tensor) -> Tensor:
            unsigned = rows.round().add_(most + 1).to(torch.uint8)
            result: Tensor = product(
                unsigned, 1.0, most + 1, held, scale, zeros, None,
                1.0, 0, torch.float32, "none", [], "",
            )  # fmt: skip
            return result

        return _eight_bit(multiply, most, twice, bias, values)

    return pack


def by_size(few_weights: Pack, more: Pack) -> Pack:
    """One for what has at most `FEW_WEIGHTS`, another for the rest."""

    def pack(weight: Tensor, bias: Tensor | None) -> Product:
        return (more if weight.numel() > FEW_WEIGHTS else few_weights)(weight, bias)

    return pack


def _eight_bit(
    multiply: Callable[[Tensor], Tensor],
    most: int,
    twice: bool,
    bias: Tensor | None,
    values: Tensor,
) -> EightBit:
    return EightBit(
        multiply,
        most=torch.tensor(float(most)),
        finer=torch.tensor(2.0 * most) if twice else None,
        bias=None if bias is None else bias.float(),
        shape=(values.shape[0], values.shape[1]),
        nbytes=values.nbytes,
    )
