"""The kernels for a GPU, run by Triton's interpreter where there is none; on one as they are."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

paged = pytest.importorskip("service.model.operators.paged")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS, WIDTH, LAYERS, SEATS, NUM_PAGES = 3, 32, 2, 4, 2
HALF = HEADS * 64 * WIDTH
LONGEST = 70  # a page and a bit


class Filled:
    """Seats whose pages lie in any order, full of NaN but for what is written."""

    def __init__(self, dtype: torch.dtype) -> None:
        draws = torch.Generator().manual_seed(0)
        held = torch.full((20, LAYERS * 2 * HALF), torch.nan, dtype=dtype, device=DEVICE)
        order = torch.randperm(20, generator=draws)[: SEATS * NUM_PAGES].view(SEATS, NUM_PAGES)
        tables_SP = torch.zeros(SEATS, NUM_PAGES, dtype=torch.int64)
        self.pages = paged.Pages(held[7], tables_SP, HEADS, WIDTH)
        for seat in range(SEATS):
            for number in range(NUM_PAGES):
                place = self.pages.place(held[order[seat, number]])
                tables_SP[seat, number] = place
        self.pages = paged.Pages(held[7], tables_SP.to(DEVICE), HEADS, WIDTH)
        self.seats_B = torch.tensor([3, 0, 2], device=DEVICE)
        whole = torch.randn(3, LONGEST, 3, HEADS, WIDTH, generator=draws).to(DEVICE, dtype)
        self.query, self.key, self.value = whole.permute(2, 0, 3, 1, 4)
        positions_BN = torch.arange(LONGEST, device=DEVICE).expand(3, -1)
        for layer in range(LAYERS):
            key, value = self.key * (layer + 1), self.value + layer
            paged.write(key, value, self.pages, self.seats_B, positions_BN, layer)
        self.bias_ST = torch.randn(SEATS, NUM_PAGES * 64, generator=draws).to(DEVICE, dtype)

    def right(self, lengths_BN: Tensor, layer: int, biased: bool) -> Tensor:
        rows = []
        for row, lengths in enumerate(lengths_BN.tolist()):
            for new, length in enumerate(lengths):
                query = self.query[row, :, new, None].double()
                key = self.key[row, :, :length].double() * (layer + 1)
                value = self.value[row, :, :length].double() + layer
                logits = query @ key.mT / math.sqrt(WIDTH)
                if biased:
                    logits = logits + self.bias_ST[self.seats_B[row], :length].double()
                rows.append((logits.softmax(-1) @ value).flatten())
        return torch.stack(rows).view(*lengths_BN.shape, -1)


@pytest.mark.parametrize(
    ("num_new", "splits", "biased", "layer", "dtype"),
    [
        (1, 1, False, 1, torch.float16),
        (1, 3, True, 1, torch.float32),
        (18, 1, True, 0, torch.float32),
    ],
)
def test_each_query_reads_what_is_before_it(
    num_new: int, splits: int, biased: bool, layer: int, dtype: torch.dtype
) -> None:
    filled = Filled(dtype)
    draws = torch.Generator().manual_seed(1)
    lengths_BN = torch.randint(1, LONGEST + 1, (3, num_new), generator=draws)
    lengths_BN[0, 0], lengths_BN[1, 0], lengths_BN[2, -1] = 1, 64, LONGEST
    found = paged.attend(
        filled.query[:, :, :num_new],
        filled.pages,
        filled.seats_B,
        lengths_BN.to(DEVICE),
        layer,
        filled.bias_ST if biased else None,
        splits,
    )
    close = 1e-5 if dtype == torch.float32 else 5e-3
    right = filled.right(lengths_BN, layer, biased)
    torch.testing.assert_close(found.double(), right, atol=close, rtol=0)


BUILD = """
import triton
from triton.backends.compiler import GPUTarget
from service.model.operators import paged

def build(kernel, fixed, **types):
    names = kernel.arg_names
    signature = {name: "i32" for name in names} | types | dict.fromkeys(fixed, "constexpr")
    aligned = [name for name in names if signature[name][0] == "*" or name.endswith("offset")]
    source = triton.compiler.ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in fixed.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]

shape = dict(HALF=8 * 64 * 64, HEADS=8, WIDTH=64, PAGE_SIZE=64, UNIT_SIZE=16)
numbers = dict.fromkeys(("tables", "seats"), "*i64")
code = build(
    paged._attend,
    shape | dict(BIASED=True, IN_PARTS=True, BLOCK=16, PRECISION="tf32"),
    **numbers, lengths="*i64", scale="fp32", out="*fp32",
    **dict.fromkeys(("query", "base", "bias"), "*fp16"),
)
assert "cp.async.cg" in code, "keys and values are not read sixteen bytes at once"
assert "mma.sync" in code, "products are not the matrix unit's"
build(
    paged._write, shape | dict(MOST_HEADS=8),
    **numbers, positions="*i64", **dict.fromkeys(("key", "value", "base"), "*fp16"),
)
build(paged._merge, dict(HEADS=8, WIDTH=64, MOST=16), parts="*fp32", out="*fp16")
"""


def test_the_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    """An A100's, without one."""
    names = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", BUILD]
    told = subprocess.run(command, env=os.environ | names, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
