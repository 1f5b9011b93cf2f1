"""`winnow bench http`: the service over HTTP, with ever more requests in flight."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np

from bench.command import FAILED, OK, stem
from bench.contest.material import clips_of
from bench.progress import Planned, Progress, say
from bench.record import Record
from loadtest.own_service import own_service
from service.lab.packing import Item
from service.lab.runs import wav
from service.text.wer import word_errors, words_of

HEADS = (
    "| profile | in flight | requests/s: least, median, most | x real time | p50, s | p95, s "
    "| WER | refused |"
)
PATIENCE_S = 3600  # nobody is refused or given up on: what is asked is how long it takes


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: which recording, how long it took, and its text; None where it was refused."""

    item: int
    seconds: float
    text: str | None


@dataclass(frozen=True, slots=True)
class Level:
    """All the rounds with so many requests in flight. `wer` in per cent, over all of them."""

    profile: str
    in_flight: int
    requests_per_s: tuple[float, ...]
    x_real_time: tuple[float, ...]
    p50_s: float
    p95_s: float
    wer: float
    refused: int


def run(args: argparse.Namespace) -> int:
    """1 where a request was refused."""
    record = Record(stem(args, "http"), args.arguments, args.threads)
    levels: list[Level] = []
    with tempfile.TemporaryDirectory() as work:
        (clips,) = clips_of(args.corpus, args.domain, [args.kind], args.limit, Path(work))
    os.environ |= {
        "WINNOW_MODEL": args.model,
        "WINNOW_DTYPE": args.dtype,
        "WINNOW_THREADS": str(args.threads),
        "WINNOW_MAX_WAIT_SECONDS": str(PATIENCE_S),
        "WINNOW_DEADLINE_SECONDS": str(PATIENCE_S),
    }
    say("starting the service")
    try:
        with own_service() as url, asyncio.Runner() as runner:
            for level in _levels(url, list(clips.items), args, runner):
                levels.append(level)
                record.write({"levels": [asdict(one) for one in levels]})
    finally:
        if levels:
            record.finish(table(levels), lambda path: _plot(levels, path))
    return FAILED if any(level.refused for level in levels) else OK


def _levels(
    url: str, items: list[Item], args: argparse.Namespace, runner: asyncio.Runner
) -> Iterator[Level]:
    """The profiles take turns on each level."""
    per_level = {number: max(len(items), 2 * number) for number in args.in_flight}
    progress = Progress(
        [
            Planned(profile, float(count))
            for count in per_level.values()
            for _ in range(args.rounds)
            for profile in args.profiles
        ]
    )
    bodies = [wav(item.pcm).getvalue() for item in items]
    client = Client(url, bodies, args.language)
    for profile in args.profiles:  # whoever comes first pays for what is lazy
        runner.run(client.send(profile, 2, 2))

    def of(in_flight: int) -> list[Level]:
        took: dict[str, list[tuple[float, list[Answered]]]] = {name: [] for name in args.profiles}
        for number in range(args.rounds):
            first = number % len(args.profiles)
            for profile in (*args.profiles[first:], *args.profiles[:first]):
                what = f"{in_flight} in flight, round {number + 1} of {args.rounds}: {profile}"
                with progress.turn(what):
                    began = time.perf_counter()
                    answers = runner.run(client.send(profile, in_flight, per_level[in_flight]))
                    took[profile].append((time.perf_counter() - began, answers))
        return [level_of(profile, in_flight, rounds, items) for profile, rounds in took.items()]

    return itertools.chain.from_iterable(of(in_flight) for in_flight in args.in_flight)


class Client:
    """Sends recordings, in turn, with so many requests always in flight."""

    def __init__(self, url: str, bodies: Sequence[bytes], language: str) -> None:
        self._url, self._bodies, self._language = url, bodies, language

    async def send(self, profile: str, in_flight: int, count: int) -> list[Answered]:
        """`count` requests. Raises httpx.HTTPError where the service is gone."""
        limits = httpx.Limits(max_connections=in_flight)
        queue = iter(range(count))
        async with httpx.AsyncClient(
            base_url=self._url, timeout=PATIENCE_S, limits=limits
        ) as client:

            async def one_after_another() -> list[Answered]:
                return [await self._ask(client, profile, n % len(self._bodies)) for n in queue]

            some = await asyncio.gather(*(one_after_another() for _ in range(in_flight)))
        return [answered for part in some for answered in part]

    async def _ask(self, client: httpx.AsyncClient, profile: str, number: int) -> Answered:
        began = time.perf_counter()
        answer = await client.post(
            "/transcribe",
            files={"file": ("clip.wav", self._bodies[number], "audio/wav")},
            data={"profile": profile, "language": self._language},
        )
        text = answer.json()["text"] if answer.status_code == httpx.codes.OK else None
        return Answered(number, time.perf_counter() - began, text)


def level_of(
    profile: str,
    in_flight: int,
    rounds: Sequence[tuple[float, Sequence[Answered]]],
    items: Sequence[Item],
) -> Level:
    """Rates by round; latencies and words of all that were answered."""
    done = [[one for one in answers if one.text is not None] for _, answers in rounds]
    seconds = [wall_s for wall_s, _ in rounds]
    answered = [one for answers in done for one in answers]
    errors = words = 0
    for one in answered:
        item = items[one.item]
        reference = words_of(item.text, item.language)
        errors += word_errors(reference, words_of(one.text or "", item.language))
        words += len(reference)
    waits = [one.seconds for one in answered] or [float("nan")]
    audio_s = [sum(items[one.item].seconds for one in answers) for answers in done]
    return Level(
        profile=profile,
        in_flight=in_flight,
        requests_per_s=tuple(len(a) / s for a, s in zip(done, seconds, strict=True)),
        x_real_time=tuple(a / s for a, s in zip(audio_s, seconds, strict=True)),
        p50_s=float(np.quantile(waits, 0.5)),
        p95_s=float(np.quantile(waits, 0.95)),
        wer=100 * errors / words if words else float("nan"),
        refused=sum(len(answers) for _, answers in rounds) - len(answered),
    )


def table(levels: Sequence[Level]) -> str:
    """As Markdown."""
    lines = [HEADS, "|---" * 8 + "|"]
    for level in levels:
        rates = sorted(level.requests_per_s)
        lines.append(
            f"| {level.profile} | {level.in_flight} | {rates[0]:.2f} / "
            f"**{statistics.median(rates):.2f}** / {rates[-1]:.2f} "
            f"| {statistics.median(level.x_real_time):.1f} | {level.p50_s:.2f} "
            f"| {level.p95_s:.2f} | {level.wer:.1f} | {level.refused} |"
        )
    return "\n".join(lines)


def _plot(levels: Sequence[Level], path: Path) -> None:
    """Times real time, and how long the 95th of a hundred waits, by requests in flight."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for profile in dict.fromkeys(level.profile for level in levels):
        some = [level for level in levels if level.profile == profile]
        places = [level.in_flight for level in some]
        rates = [statistics.median(level.x_real_time) for level in some]
        axes[0].plot(places, rates, "o-", label=profile)
        axes[1].plot(places, [level.p95_s for level in some], "o-", label=profile)
    for axis, title in zip(axes, ("times real time", "p95 of answers, s"), strict=True):
        axis.set(title=title, xlabel="requests in flight", ylim=(0, None))
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
