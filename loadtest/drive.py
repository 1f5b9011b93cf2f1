"""One step against a server: Locust's runner sends, the server's series are read around it."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import gevent
from gevent.event import Event
from locust.env import Environment
from tqdm import tqdm

from loadtest import accuracy, scrape
from loadtest.arrivals import schedule
from loadtest.audio import Recording, in_turns
from loadtest.outcomes import Summary, Visit, summarise
from loadtest.results import Generator, Step, StepResult
from loadtest.scrape import Scrape
from loadtest.server_side import DECODING, MEMORY, QUEUE, Reading, ServerSide, server_side
from loadtest.users import MOST_OPEN, OpenLoop, SpeechUser

READ_EVERY_S = 1.0
SETTLE_S = 30.0  # how long the next step waits for the server's queue to run empty
BUSY_CORES = 0.9  # of the one core that a Python process can use


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent in every step, and when a step counts as held."""

    recordings: tuple[Recording, ...]
    law: str
    language: str | None
    timeout_s: float
    obey_share: float
    p95_s: float | None
    max_errors: float
    max_late_s: float
    memory_every_s: float


def allow_many_connections() -> None:
    """Raises this process' limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_OPEN + 100
    if soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


def run_step(host: str, step: Step, load: Load, stop: Event) -> StepResult:
    """Runs one step and waits for its answers; `stop` cuts it short, with what there is."""
    visits: list[Visit] = []
    users: list[SpeechUser] = []
    done = Event()

    class StepUser(SpeechUser):
        profile = step.profile
        language = load.language
        network_timeout = connection_timeout = load.timeout_s

        def open_loop(self) -> OpenLoop:
            users.append(self)
            return OpenLoop(
                self,
                schedule(load.law, step.rate, step.seconds, step.seed),
                in_turns(load.recordings, step.seed),
                visits.append,
                obey_share=load.obey_share,
                ends_s=step.seconds,
                seed=step.seed,
            )

        def on_stop(self) -> None:
            super().on_stop()
            done.set()

    environment = Environment(user_classes=[StepUser], host=host)
    runner = environment.create_local_runner()
    before = _settled(host, stop)
    began, cpu_began = time.perf_counter(), time.process_time()
    with _reading(host, step, before is not None) as readings:
        runner.start(1, spawn_rate=1)
        gevent.wait([done, stop], timeout=step.seconds, count=1)
        ran_s = time.perf_counter() - began
        cpu_cores = (time.process_time() - cpu_began) / ran_s
        gevent.wait([done, stop], count=1)
    interrupted = not done.is_set()
    runner.quit()
    after = _scraped(host)
    wall_s = time.perf_counter() - began
    open_requests = sum(user.loop.num_open for user in users)
    summary = summarise(visits, ran_s if interrupted else step.seconds, open_requests)
    total = environment.stats.total
    return StepResult(
        step=step,
        summary=summary,
        words=accuracy.score(visits),
        generator=_generator(summary, cpu_cores, load),
        server=_server(step, before, after, readings, wall_s, load),
        locust={
            "num_requests": total.num_requests,
            "num_failures": total.num_failures,
            "p95_ms": total.get_response_time_percentile(0.95) or None,
        },
        held=_held(summary, cpu_cores, load) and not interrupted,
        interrupted=interrupted,
    )


def _generator(summary: Summary, cpu_cores: float, load: Load) -> Generator:
    limited = summary.late_p99_s > load.max_late_s or cpu_cores > BUSY_CORES
    return Generator(summary.late_p99_s, cpu_cores, limited)


def _held(summary: Summary, cpu_cores: float, load: Load) -> bool:
    slow = load.p95_s is not None and (summary.p95_s is None or summary.p95_s > load.p95_s)
    limited = _generator(summary, cpu_cores, load).limited
    return not (slow or limited or summary.error_share > load.max_errors)


def _server(
    step: Step,
    before: Scrape | None,
    after: Scrape | None,
    readings: list[Reading],
    wall_s: float,
    load: Load,
) -> ServerSide | None:
    if before is None or after is None:
        return None
    return server_side(step.profile, before, after, readings, wall_s, load.memory_every_s)


def _scraped(host: str) -> Scrape | None:
    try:
        return scrape.fetch(host)
    except (OSError, ValueError):
        return None


def _settled(host: str, stop: Event) -> Scrape | None:
    """A scrape of the server at rest: what an earlier step left behind is not this one's."""
    give_up = time.monotonic() + SETTLE_S
    while True:
        found = _scraped(host)
        at_rest = found is None or not (found.total(QUEUE) or found.total(DECODING))
        if at_rest or time.monotonic() > give_up or stop.is_set():
            return found
        gevent.sleep(0.2)


@contextmanager
def _reading(host: str, step: Step, has_metrics: bool) -> Iterator[list[Reading]]:
    """Reads the gauges every second while the context lasts, and shows how far the step is."""
    readings: list[Reading] = []
    bar = tqdm(total=round(step.seconds), desc=f"{step.profile} {step.rate:g}/s", unit="s",
               leave=False, disable=None)  # fmt: skip
    began = time.perf_counter()

    def read() -> None:
        while True:
            at_s = time.perf_counter() - began
            bar.update(min(int(at_s), bar.total) - bar.n)
            if has_metrics:
                _read(host, at_s, readings)
            gevent.sleep(READ_EVERY_S)

    reader = gevent.spawn(read)
    try:
        yield readings
    finally:
        reader.kill()
        if has_metrics:
            _read(host, time.perf_counter() - began, readings)
        bar.close()


def _read(host: str, at_s: float, readings: list[Reading]) -> None:
    try:
        now = scrape.fetch(host, only=(QUEUE, DECODING, MEMORY))
    except (OSError, ValueError):
        return  # an overloaded server may miss one
    readings.append(Reading(at_s, now.total(QUEUE), now.total(DECODING), now.total(MEMORY)))
