"""A step as the server saw it: from its own series, before and after. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.scrape import Scrape, growth

QUEUE, DECODING = "winnow_queue_windows", "winnow_decoding_windows"
MEMORY, CPU = "process_resident_memory_bytes", "process_cpu_seconds_total"
STAGES = ("decode_audio", "queue", "mel", "encode", "decode", "total")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read while the step ran, `at_s` seconds after its start."""

    at_s: float
    queue_windows: float
    decoding_windows: float
    memory_bytes: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of the server's process."""

    minutes: float
    megabytes: float


@dataclass(frozen=True, slots=True)
class ServerSide:
    """None where nothing was observed. Stage times are means a request, in seconds."""

    real_time_factor: float | None
    real_time_factor_p95: float | None
    request_p95_s: float | None
    stage_s: dict[str, float | None]
    batch_windows: float | None
    queue_before: float
    queue_after: float
    queue_mean: float
    queue_peak: float
    decoding_peak: float
    audio_seconds: float
    frames_kept_share: float | None
    fallbacks: float
    cancelled: float
    requests_by_status: dict[str, float]
    cpu_cores: float | None
    memory: tuple[Memory, ...]


def server_side(
    profile: str,
    before: Scrape,
    after: Scrape,
    readings: Sequence[Reading],
    wall_s: float,
    memory_every_s: float,
) -> ServerSide:
    """What happened to requests of `profile` between two scrapes that are `wall_s` apart."""
    grown = growth(before, after)
    frames = grown.by("winnow_frames_total", "outcome", profile=profile)
    return ServerSide(
        real_time_factor=grown.mean("winnow_real_time_factor", profile=profile),
        real_time_factor_p95=grown.quantile("winnow_real_time_factor", 0.95, profile=profile),
        request_p95_s=grown.quantile("winnow_request_seconds", 0.95, profile=profile),
        stage_s={
            stage: grown.mean("winnow_stage_seconds", stage=stage, profile=profile)
            for stage in STAGES
        },
        batch_windows=grown.mean("winnow_batch_windows"),
        queue_before=before.total(QUEUE),
        queue_after=after.total(QUEUE),
        queue_mean=sum(r.queue_windows for r in readings) / len(readings) if readings else 0.0,
        queue_peak=max((r.queue_windows for r in readings), default=0.0),
        decoding_peak=max((r.decoding_windows for r in readings), default=0.0),
        audio_seconds=grown.total("winnow_audio_seconds_total", profile=profile),
        frames_kept_share=frames.get("kept", 0.0) / sum(frames.values())
        if sum(frames.values())
        else None,
        fallbacks=grown.total("winnow_fallbacks_total", profile=profile),
        cancelled=grown.total("winnow_cancelled_total"),
        requests_by_status={
            status: number
            for status, number in grown.by(
                "winnow_requests_total", "status", profile=profile
            ).items()
            if number
        },
        cpu_cores=grown.total(CPU) / wall_s if grown.has(CPU) else None,
        memory=memory_marks(readings, memory_every_s),
    )


def memory_marks(readings: Sequence[Reading], every_s: float) -> tuple[Memory, ...]:
    """Memory at the start, at every mark that was reached, and at the end."""
    known = [r for r in readings if r.memory_bytes]
    if not known:
        return ()
    marks, due_s = [known[0]], every_s
    for reading in known[1:]:
        if reading.at_s >= due_s:
            marks.append(reading)
            due_s = (reading.at_s // every_s + 1) * every_s
    if marks[-1] is not known[-1]:
        marks.append(known[-1])
    return tuple(Memory(round(r.at_s / 60, 2), r.memory_bytes / 1e6) for r in marks)
