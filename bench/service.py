"""The running service under load: is health quick, and does a short clip wait for a long file?

    scripts/serve &  python -m bench.service --url http://127.0.0.1:8000

Sends 32 requests at once and asks `/healthz` meanwhile; then a 20-minute file and, while it is
being transcribed, a 2 s clip. The speech is a sample of the repository, repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import time
from pathlib import Path

import httpx
import numpy as np
import soundfile

SAMPLE = Path(__file__).parents[1] / "docs" / "samples" / "ljspeech-mix.opus"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="(%(default)s)")
    parser.add_argument("--requests", type=int, default=32, help="in flight (%(default)s)")
    parser.add_argument("--minutes", type=float, default=20, help="of the long file (%(default)s)")
    parser.add_argument("--profile", default="dense", help="(%(default)s)")
    asyncio.run(_measure(parser.parse_args()))


async def _measure(args: argparse.Namespace) -> None:
    limits = httpx.Limits(max_connections=args.requests + 8)
    async with httpx.AsyncClient(base_url=args.url, timeout=3600, limits=limits) as client:
        await _post(client, speech(2), args.profile)  # a first request pays for what is lazy
        await _health_under_load(client, args)
        await _short_behind_long(client, args)


async def _health_under_load(client: httpx.AsyncClient, args: argparse.Namespace) -> None:
    clip = speech(20)
    began = time.perf_counter()
    work = asyncio.gather(*(_post(client, clip, args.profile) for _ in range(args.requests)))
    waits = []
    while not work.done():
        asked = time.perf_counter()
        (await client.get("/healthz")).raise_for_status()
        waits.append((time.perf_counter() - asked) * 1000)
        await asyncio.sleep(0.02)
    took = time.perf_counter() - began
    await work
    p50, p99 = statistics.median(waits), float(np.quantile(waits, 0.99))
    print(
        f"{args.requests} requests of 20 s in flight: done in {took:.1f} s "
        f"({args.requests * 20 / took:.1f}x real time)\n"
        f"/healthz meanwhile, {len(waits)} times: p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
        f"worst {max(waits):.1f} ms"
    )


async def _short_behind_long(client: httpx.AsyncClient, args: argparse.Namespace) -> None:
    alone = await _post(client, speech(2), args.profile)
    began = time.perf_counter()
    long = asyncio.create_task(_post(client, speech(args.minutes * 60), args.profile))
    # Its windows have to be in the queue, or the clip would not be behind it.
    while not long.done() and not await _gauge(client, "winnow_queue_windows"):
        await asyncio.sleep(0.05)
    waited = time.perf_counter() - began
    short = await _post(client, speech(2), args.profile)
    whole = await long
    print(
        f"2 s clip alone: {alone:.2f} s; sent when the windows of a {args.minutes:g}-minute file "
        f"were queued ({waited:.1f} s after the file): {short:.2f} s\n"
        f"the file took {whole:.1f} s, {whole - waited:.1f} s of it from then on: the clip was "
        f"back after {short / (whole - waited):.1%} of that"
    )


async def _post(client: httpx.AsyncClient, wav: bytes, profile: str) -> float:
    began = time.perf_counter()
    files = {"file": ("speech.wav", wav, "audio/wav")}
    answer = await client.post("/transcribe", files=files, data={"profile": profile})
    answer.raise_for_status()
    return time.perf_counter() - began


async def _gauge(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


def speech(seconds: float) -> bytes:
    """A WAV file of the sample, repeated to fill `seconds`; it pauses between its sentences."""
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    out = io.BytesIO()
    soundfile.write(out, np.resize(samples, int(seconds * rate)), rate, format="WAV")
    return out.getvalue()


if __name__ == "__main__":
    main()
