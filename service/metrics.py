"""Every Prometheus series, declared once. Buckets are for speech: tens of ms to minutes."""

from __future__ import annotations

from functools import partial

import torch
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
RTF = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5)
WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The service's series on one registry; tests make their own.

    Those of `of(model)` have that model as their first label.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        on = self.registry
        ProcessCollector(registry=on)  # process_resident_memory_bytes and its like; Linux only
        self.requests = Counter(
            "winnow_requests_total",
            "Requests answered, by HTTP status.",
            ["model", "endpoint", "profile", "status"],
            registry=on,
        )
        self.request_seconds = Histogram(
            "winnow_request_seconds",
            "Wall-clock seconds from the request's first byte to its answer.",
            ["model", "endpoint", "profile"],
            buckets=SECONDS,
            registry=on,
        )
        self.stage_seconds = Histogram(
            "winnow_stage_seconds",
            "Seconds a request spent in a stage (its share, where a batch was shared).",
            ["model", "stage", "profile"],
            buckets=SECONDS,
            registry=on,
        )
        self.real_time_factor = Histogram(
            "winnow_real_time_factor",
            "Processing seconds per second of audio, by request.",
            ["model", "profile"],
            buckets=RTF,
            registry=on,
        )
        self.audio_seconds = Counter(
            "winnow_audio_seconds_total",
            "Seconds of audio transcribed.",
            ["model", "profile"],
            registry=on,
        )
        self.batch_windows = Histogram(
            "winnow_batch_windows",
            "Windows encoded together.",
            ["model"],
            buckets=WINDOWS,
            registry=on,
        )
        self.queue_windows = Gauge(
            "winnow_queue_windows", "Windows that wait.", ["model"], registry=on
        )
        self.decoding_windows = Gauge(
            "winnow_decoding_windows", "Windows in the decode batch.", ["model"], registry=on
        )
        self.decode_memory = Gauge(
            "winnow_decode_memory_bytes",
            "What windows in decode take at the most (held), and may take (budget; 0: no limit).",
            ["model", "kind"],
            registry=on,
        )
        self.frames = Counter(
            "winnow_frames_total",
            "Encoder frames kept and dropped.",
            ["model", "profile", "outcome"],
            registry=on,
        )
        self.fallbacks = Counter(
            "winnow_fallbacks_total",
            "Windows decoded again, by reason.",
            ["model", "profile", "reason"],
            registry=on,
        )
        # Their ratio is how often a profile has to be guarded from itself.
        self.windows = Counter(
            "winnow_windows_total", "Windows transcribed.", ["model", "profile"], registry=on
        )
        self.guarded_windows = Counter(
            "winnow_guarded_windows_total",
            "Windows that the guard had decoded again, once or more often.",
            ["model", "profile"],
            registry=on,
        )
        self.cancelled = Counter(
            "winnow_cancelled_total", "Requests cancelled, by reason.", ["reason"], registry=on
        )
        self.lost_audio_workers = Counter(
            "winnow_audio_workers_lost_total",
            "Decoding processes that a recording cost: crashed, stuck, or memory.",
            ["reason"],
            registry=on,
        )
        self.live_sessions = Gauge(
            "winnow_live_sessions", "Live sessions that are connected.", registry=on
        )
        self.live_final_seconds = Histogram(
            "winnow_live_final_seconds",
            "Seconds from the pause that ended an utterance being heard to its final being sent.",
            ["model", "profile"],
            buckets=SECONDS,
            registry=on,
        )
        self.ready = Gauge(
            "winnow_ready", "1 while the model's engine accepts work.", ["model"], registry=on
        )
        self.model_info = Info(
            "winnow_model", "The models that are loaded.", ["model"], registry=on
        )
        self.device_memory = Gauge(
            "winnow_device_memory_bytes",
            "Memory of the CUDA device that torch holds: in tensors, and set aside.",
            ["kind"],
            registry=on,
        )

    def of(self, model: str) -> ModelMetrics:
        """The series of one model."""
        return ModelMetrics(self, model)

    def watch_device_memory(self, device: str) -> None:
        """Has every scrape ask torch what it holds of `device`, if that is a CUDA device.

        The memory of the CPU is the process's, and counted already.
        """
        if device.startswith("cuda"):
            for kind, ask in (
                ("allocated", torch.cuda.memory_allocated),
                ("reserved", torch.cuda.memory_reserved),
            ):
                self.device_memory.labels(kind).set_function(partial(ask, device))


class ModelMetrics:
    """The series of one model: each takes what labels it has beside the model's, if it has some."""

    def __init__(self, every: Metrics, model: str) -> None:
        self.every, self.model = every, model
        self.stage_seconds = partial(every.stage_seconds.labels, model)
        self.real_time_factor = partial(every.real_time_factor.labels, model)
        self.audio_seconds = partial(every.audio_seconds.labels, model)
        self.decode_memory = partial(every.decode_memory.labels, model)
        self.frames = partial(every.frames.labels, model)
        self.fallbacks = partial(every.fallbacks.labels, model)
        self.windows = partial(every.windows.labels, model)
        self.guarded_windows = partial(every.guarded_windows.labels, model)
        self.live_final_seconds = partial(every.live_final_seconds.labels, model)
        self.batch_windows = every.batch_windows.labels(model)
        self.queue_windows = every.queue_windows.labels(model)
        self.decoding_windows = every.decoding_windows.labels(model)
        self.ready = every.ready.labels(model)
        self.model_info = every.model_info.labels(model)

    def forget(self) -> None:
        """What is true of a loaded model only has no value any more; what was counted stays."""
        every = self.every
        for series in (every.queue_windows, every.decoding_windows, every.ready, every.model_info):
            series.remove(self.model)
        for kind in ("budget", "held"):
            self.decode_memory(kind)  # what was never set cannot be removed
            every.decode_memory.remove(self.model, kind)
