"""The policy in virtual time, on devices of different character: no threads, no clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from service.config import ServerConfig
from service.engine.queue import FairQueue
from service.engine.schedule import Load, Wait, next_batch

from .jobs import make_jobs

FILE_WINDOWS = 40  # 20 minutes


@dataclass(frozen=True, slots=True)
class Device:
    """Seconds to encode a window, of a step, and of each window in it; tokens of 30 s and 2 s."""

    encode_s: float
    step_s: float
    step_window_s: float
    file_tokens: int
    clip_tokens: int


DEVICES = {
    "CPU, small model": Device(0.03, 0.004, 0.0003, 60, 8),
    "CPU, small model, steps without overhead": Device(0.03, 0.001, 0.001, 60, 8),
    "CPU, base model": Device(0.43, 0.005, 0.0025, 100, 12),
    "GPU, large model": Device(0.015, 0.01, 0.0002, 100, 12),
    "GPU, tiny model": Device(0.0005, 0.003, 0.00001, 100, 12),
}


@dataclass(slots=True)
class Decoding:
    request: str
    tokens_left: int


def serve(device: Device, clips_at: list[float]) -> dict[str, float]:
    """When each request was done: a file sent at 0, and clips sent at the given seconds."""
    config = ServerConfig()
    tokens = Counter({"file": device.file_tokens})
    queue = FairQueue(config.max_queue_windows)
    queue.put(make_jobs("file", FILE_WINDOWS))
    arrivals = sorted(clips_at)
    now = encode_s = decode_s = 0.0
    decoding: list[Decoding] = []
    done: dict[str, float] = {}
    while arrivals or len(queue) or decoding:
        while arrivals and (arrivals[0] <= now or not (len(queue) or decoding)):
            now = max(now, arrivals[0])
            clip = f"clip at {arrivals.pop(0)}"
            tokens[clip] = device.clip_tokens
            queue.put(make_jobs(clip, 1, submitted=now))
        load = Load(Counter(d.request for d in decoding), encode_s, decode_s)
        decision = next_batch(queue, load, now, config)
        if isinstance(decision, Wait):
            now += 0.0 if decoding or decision.seconds is None else decision.seconds
        else:
            encode_s, decode_s = device.encode_s * len(decision.jobs), 0.0
            now += encode_s
            decoding += [Decoding(j.request_id, tokens[j.request_id]) for j in decision.jobs]
        if decoding:
            step_s = device.step_s + device.step_window_s * len(decoding)
            now, decode_s = now + step_s, decode_s + step_s
            for window in decoding:
                window.tokens_left -= 1
                if window.tokens_left == 0:
                    done[window.request] = now
            decoding = [d for d in decoding if d.tokens_left]
    return done


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())
def test_a_clip_behind_a_file_is_back_before_a_tenth_of_the_file_whenever_it_comes(
    device: Device,
) -> None:
    alone_s = serve(device, [])["file"]
    for percent in range(0, 95, 3):
        sent = alone_s * percent / 100
        took = serve(device, [sent])[f"clip at {sent}"] - sent
        assert took < alone_s / 10, f"sent after {percent}% of the file"


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())
def test_a_stream_of_clips_that_takes_half_the_device_leaves_the_file_a_quarter(
    device: Device,
) -> None:
    alone_s = serve(device, [])["file"]
    clip_s = serve(device, [alone_s * 2])[f"clip at {alone_s * 2}"] - alone_s * 2
    clips = [2 * clip_s * n for n in range(int(alone_s * 4 / (2 * clip_s)))]
    assert serve(device, clips)["file"] < 4 * alone_s


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())
def test_the_room_left_for_others_costs_a_lone_file_little_more_than_half_its_speed(
    device: Device,
) -> None:
    step_s = device.step_s + 32 * device.step_window_s
    full_s = FILE_WINDOWS * (device.encode_s + device.file_tokens / 32 * step_s)
    assert serve(device, [])["file"] < 2.5 * full_s
