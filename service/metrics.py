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
    """The service's series on one registry; tests make their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        on = self.registry
        ProcessCollector(registry=on)  # process_resident_memory_bytes and its like; Linux only
        self.requests = Counter(
            "winnow_requests_total",
            "Requests answered, by HTTP status.",
            ["endpoint", "profile", "status"],
            registry=on,
        )
        self.request_seconds = Histogram(
            "winnow_request_seconds",
            "Wall-clock seconds from the request's first byte to its answer.",
            ["endpoint", "profile"],
            buckets=SECONDS,
            registry=on,
        )
        self.stage_seconds = Histogram(
            "winnow_stage_seconds",
            "Seconds a request spent in a stage (its share, where a batch was shared).",
            ["stage", "profile"],
            buckets=SECONDS,
            registry=on,
        )
        self.real_time_factor = Histogram(
            "winnow_real_time_factor",
            "Processing seconds per second of audio, by request.",
            ["profile"],
            buckets=RTF,
            registry=on,
        )
        self.audio_seconds = Counter(
            "winnow_audio_seconds_total", "Seconds of audio transcribed.", ["profile"], registry=on
        )
        self.batch_windows = Histogram(
            "winnow_batch_windows", "Windows encoded together.", buckets=WINDOWS, registry=on
        )
        self.queue_windows = Gauge("winnow_queue_windows", "Windows that wait.", registry=on)
        self.decoding_windows = Gauge(
            "winnow_decoding_windows", "Windows in the decode batch.", registry=on
        )
        self.decode_memory = Gauge(
            "winnow_decode_memory_bytes",
            "What windows in decode take at the most (held), and may take (budget; 0: no limit).",
            ["kind"],
            registry=on,
        )
        self.frames = Counter(
            "winnow_frames_total",
            "Encoder frames kept and dropped.",
            ["profile", "outcome"],
            registry=on,
        )
        self.fallbacks = Counter(
            "winnow_fallbacks_total",
            "Windows decoded again, by reason.",
            ["profile", "reason"],
            registry=on,
        )
        # Their ratio is how often a profile has to be guarded from itself.
        self.windows = Counter(
            "winnow_windows_total", "Windows transcribed.", ["profile"], registry=on
        )
        self.guarded_windows = Counter(
            "winnow_guarded_windows_total",
            "Windows that the guard had decoded again, once or more often.",
            ["profile"],
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
            ["profile"],
            buckets=SECONDS,
            registry=on,
        )
        self.ready = Gauge("winnow_ready", "1 while the engine accepts work.", registry=on)
        self.model_info = Info("winnow_model", "The model that is served.", registry=on)
        self.device_memory = Gauge(
            "winnow_device_memory_bytes",
            "Memory of the CUDA device that torch holds: in tensors, and set aside.",
            ["kind"],
            registry=on,
        )

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
