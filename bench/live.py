"""How long after the end of speech does a live session's final arrive?

    scripts/serve &  python -m bench.live --url ws://127.0.0.1:8000/live

Each session speaks the repository's sample in real time, with a pause after each time, from a
start of its own. The end of speech is the end of the sample's last loud 10 ms. So the figure
holds the pause that the server waits for (0.45 s), the way there and back, and the decoding.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from pathlib import Path

import numpy as np
import soundfile
from websockets.asyncio.client import ClientConnection, connect

SAMPLE = Path(__file__).parents[1] / "docs" / "samples" / "ljspeech.flac"
STEP_S = 0.1
PAUSE_S = 1.5
LOUD = 0.02  # of full scale, root mean square of 10 ms


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", default="ws://127.0.0.1:8000/live", help="(%(default)s)")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4, 8], help="(%(default)s)")
    parser.add_argument("--times", type=int, default=5, help="each session speaks (%(default)s)")
    parser.add_argument("--profile", default="dense", help="(%(default)s)")
    parser.add_argument("--no-partials", action="store_true")
    asyncio.run(_measure(parser.parse_args()))


async def _measure(args: argparse.Namespace) -> None:
    await _session(args, 1)  # a first session pays for what is lazy
    for num_sessions in args.sessions:
        found = await asyncio.gather(*(_session(args, args.times) for _ in range(num_sessions)))
        waits = [wait for one in found for wait in one[0]]
        partials = sum(one[1] for one in found)
        p50, p95 = np.quantile(waits, [0.5, 0.95])
        print(
            f"{num_sessions} sessions, {len(waits)} finals, {partials} partials: "
            f"end of speech to final p50 {p50:.2f} s, p95 {p95:.2f} s, worst {max(waits):.2f} s",
            flush=True,
        )


async def _session(args: argparse.Namespace, times: int) -> tuple[list[float], int]:
    """Seconds from each end of speech to its final, and the number of partials."""
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    speech_s = _end_of_speech(samples, rate)
    phrase = np.concatenate([samples, np.zeros(round(PAUSE_S * rate), np.int16)])
    await asyncio.sleep(random.uniform(0, len(phrase) / rate))
    async with connect(args.url, compression=None, ping_timeout=None) as socket:
        start = {"type": "start", "profile": args.profile, "sample_rate": rate}
        await socket.send(json.dumps({**start, "partials": not args.no_partials}))
        assert json.loads(await socket.recv())["type"] == "ready"
        began = time.perf_counter()
        speaking = asyncio.create_task(_speak(socket, np.tile(phrase, times), rate, began))
        waits, num_partials = [], 0
        async for text in socket:
            message = json.loads(text)
            if message["type"] == "final":
                # Which time it was spoken is told by the final's own clock, not by its number.
                middle_s = (message["start"] + message["end"]) / 2
                number = int(middle_s * rate) // len(phrase)
                said = began + number * len(phrase) / rate + speech_s
                waits.append(time.perf_counter() - said)
            num_partials += message["type"] == "partial"
        await speaking
    return waits, num_partials


async def _speak(
    socket: ClientConnection,
    samples: np.ndarray[tuple[int], np.dtype[np.int16]],
    rate: int,
    began: float,
) -> None:
    """Sends each step when it has been said."""
    step = round(STEP_S * rate)
    for at in range(0, len(samples), step):
        await asyncio.sleep(began + (at + step) / rate - time.perf_counter())
        await socket.send(samples[at : at + step].tobytes())
    await socket.send(json.dumps({"type": "stop"}))


def _end_of_speech(samples: np.ndarray[tuple[int], np.dtype[np.int16]], rate: int) -> float:
    step = rate // 100
    pieces = samples[: len(samples) // step * step].reshape(-1, step).astype(np.float64) / 32768
    loud = np.flatnonzero(np.sqrt(np.square(pieces).mean(axis=1)) > LOUD)
    return float(loud[-1] + 1) / 100


if __name__ == "__main__":
    main()
