"""Visits and results of steps, made up for tests."""

from __future__ import annotations

from loadtest.accuracy import WordErrors
from loadtest.audio import Recording
from loadtest.machine import Machine
from loadtest.outcomes import Visit, summarise
from loadtest.report import Setting
from loadtest.results import RATE, Generator, Step, StepResult
from loadtest.server_side import Memory, ServerSide

CLIP = Recording("clip", 4.0, "good day", b"")
ONE_IN_TEN = WordErrors(1, 10)


def visit(
    due_s: float = 0.0,
    latency_s: float = 0.5,
    status: int = 200,
    *,
    late_s: float = 0.001,
    text: str = "",
    error: str = "",
    returned: bool = False,
    retry_after_s: float | None = None,
    recording: Recording = CLIP,
) -> Visit:
    """A request of a 4 s recording, answered after half a second unless told otherwise."""
    return Visit(recording, due_s, late_s, latency_s, status, text, error, returned, retry_after_s)


def result(
    profile: str = "dense",
    rate: float = 2.0,
    *,
    kind: str = RATE,
    latencies_s: tuple[float, ...] = (0.5,) * 20,
    refused: int = 0,
    held: bool = True,
    limited: bool = False,
    interrupted: bool = False,
    words: WordErrors = ONE_IN_TEN,
    memory: tuple[Memory, ...] = (),
) -> StepResult:
    """A step of ten seconds with these answers."""
    visits = [visit(0.0, s) for s in latencies_s] + [visit(status=429)] * refused
    return StepResult(
        step=Step(kind, profile, rate, 10.0, seed=0),
        summary=summarise(visits, 10.0),
        words=words,
        generator=Generator(0.2 if limited else 0.001, 0.1, limited),
        server=server(memory),
        locust={"num_requests": len(visits), "num_failures": refused, "p95_ms": 500},
        held=held,
        interrupted=interrupted,
    )


def server(memory: tuple[Memory, ...]) -> ServerSide:
    """A server's side of a step."""
    return ServerSide(
        real_time_factor=0.05,
        real_time_factor_p95=0.1,
        request_p95_s=0.5,
        stage_s={"queue": 0.25},
        batch_windows=1.5,
        queue_before=0,
        queue_after=0,
        queue_mean=0,
        queue_peak=1,
        decoding_peak=1,
        audio_seconds=80,
        frames_kept_share=None,
        fallbacks=0,
        cancelled=0,
        requests_by_status={"200": 20},
        cpu_cores=0.5,
        memory=memory,
    )


def setting(*, shares_machine: bool = False) -> Setting:
    """The setting of a run."""
    return Setting(
        command="python -m loadtest.compare --rate 2",
        date="2026-01-02T03:04:05+00:00",
        machine=Machine("a CPU", 8, 4, 32.0, (), "3.11", "2.13", "2.47"),
        host="http://127.0.0.1:8000",
        shares_machine=shares_machine,
        model={"name": "fake"},
        mix="one recording",
        arrivals="poisson",
        seed=0,
        timeout_s=60,
        p95_limit_s=2.0,
    )
