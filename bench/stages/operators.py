"""The operators that a batch of windows spends most in, by torch's profiler."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiled

from bench.contest.ours import decode_exactly
from service.families.whisper import Whisper
from service.profiles import Profile
from service.types import Samples


def costliest(
    model: Whisper, clips: Sequence[Samples], profile: Profile, tokens: int, count: int
) -> str:
    """A table of the `count` costliest. Being watched costs the cheap ones much."""
    with torch.inference_mode(), profiled(activities=[ProfilerActivity.CPU]) as found:
        decode_exactly(model, list(clips), "en", profile, tokens)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    lines = ["| operator | calls | ms a window | share |", "|---" * 4 + "|"]
    for event in events[:count]:
        took_ms = event.self_cpu_time_total / 1000 / len(clips)
        share = event.self_cpu_time_total / total
        lines.append(f"| {event.key} | {event.count} | {took_ms:.2f} | {share:.0%} |")
    return "\n".join(lines)
