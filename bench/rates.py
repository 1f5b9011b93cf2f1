"""What the machine can do: its matrix rate and its copy rate, beside which other figures stand.

python -m bench.rates --device cuda --dtype float16
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from bench.device import await_device


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--dtype", default="float32", help="(%(default)s)")
    args = parser.parse_args()
    device = torch.device(args.device)
    matrices = matrix_rate(device, getattr(torch, args.dtype))
    print(
        f"{args.dtype} matrix product {matrices / 1e12:.2f} TFLOP/s, "
        f"copy {copy_rate(device) / 1e9:.0f} GB/s (read and written)"
    )


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second in a product of two large square matrices."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / median_s(lambda: a @ b, device)


def copy_rate(device: torch.device) -> float:
    """Bytes read and written a second where a tensor much larger than the cache is copied."""
    source = torch.empty(1 << (30 if device.type == "cuda" else 28), device=device).normal_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_s(lambda: target.copy_(source), device)


def median_s(work: Callable[[], object], device: torch.device, runs: int = 10) -> float:
    """Seconds that it takes, after two runs that count for nothing."""
    times = []
    for _ in range(runs + 2):
        began = time.perf_counter()
        work()
        await_device(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
