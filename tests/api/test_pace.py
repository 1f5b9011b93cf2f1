"""How fast an upload has to come, and who gives way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from service.api.pace import SMALL_BYTES, Pace, Uploads
from service.config import ServerConfig
from service.errors import QueueFull, TooSlow

MB = 1024 * 1024


async def pieces(*steps: tuple[float, int]) -> AsyncIterator[bytes]:
    """Pieces of so many bytes, each after so many seconds."""
    for wait_s, size in steps:
        await asyncio.sleep(wait_s)
        yield bytes(size)


async def received(pace: Pace, source: AsyncIterator[bytes]) -> int:
    while await pace.next(source) is not None:
        pass
    return pace.received_bytes


@pytest.mark.parametrize(
    "steps",
    [
        [(9.0, 1)],
        [(0.0, 10**6), (9.0, 1)],
        [(1.0, 1)] * 20,
    ],
    ids=["never begins", "stalls", "trickles"],
)
def test_too_slow(steps: list[tuple[float, int]]) -> None:
    scale = 0.02  # seconds of a test to those above

    async def scenario() -> None:
        pace = Pace(0, 5 * scale, 100 / scale)
        with pytest.raises(TooSlow, match="bytes a second"):
            await received(pace, pieces(*((wait_s * scale, size) for wait_s, size in steps)))

    asyncio.run(scenario())


def test_who_keeps_the_rate_may_take_for_ever_and_pauses_are_forgiven() -> None:
    async def scenario() -> int:
        pace = Pace(0, 1.0, 10.0)
        steps = [(0.1, 10)] * 15 + [(0.5, 10), (0.0, 10)] * 2
        return await received(pace, pieces(*steps))

    assert asyncio.run(scenario()) == 190


def test_time_that_we_take_does_not_count() -> None:
    async def scenario() -> int:
        pace = Pace(0, 0.2, 1.0)
        source = pieces(*[(0.0, 1)] * 4)
        while await pace.next(source) is not None:
            await asyncio.sleep(0.1)  # as a slow disk does
        return pace.received_bytes

    assert asyncio.run(scenario()) == 4


def test_a_place_is_free_again_however_an_upload_ends() -> None:
    async def scenario() -> None:
        uploads = Uploads(ServerConfig(max_uploads=1))
        for _ in range(3):
            with suppress(TooSlow), uploads.reading(0):
                with pytest.raises(QueueFull) as full, uploads.reading(0):
                    pass
                assert full.value.retry_after_s >= 1
                raise TooSlow("")

    asyncio.run(scenario())


def test_what_was_announced_counts_while_it_comes() -> None:
    async def scenario() -> None:
        uploads = Uploads(ServerConfig(max_uploading_mb=100, stall_seconds=600))
        with uploads.reading(90 * MB) as large:
            with pytest.raises(QueueFull, match="Too much"), uploads.reading(20 * MB):
                pass
            with uploads.reading(10 * MB), uploads.reading(SMALL_BYTES):
                pass
            stalled = asyncio.create_task(received(large, pieces((0, 5 * MB), (60, 1))))
            await asyncio.sleep(1.1)
            with uploads.reading(90 * MB):  # of the other only what is here
                pass
            stalled.cancel()

    asyncio.run(scenario())


def test_what_nobody_announced_counts_as_it_grows() -> None:
    async def scenario() -> None:
        uploads = Uploads(ServerConfig(max_uploading_mb=10))
        with uploads.reading(0) as first, uploads.reading(0) as second:
            assert await received(first, pieces((0, 6 * MB))) == 6 * MB
            uploads.check_room(first)
            await received(second, pieces((0, SMALL_BYTES)))
            uploads.check_room(second)
            await received(second, pieces((0, MB)))
            with pytest.raises(QueueFull, match="Too much"):
                uploads.check_room(second)
        with uploads.reading(0) as alone:
            await received(alone, pieces((0, 20 * MB)))
            uploads.check_room(alone)

    asyncio.run(scenario())


def test_the_slowest_gives_way_and_nobody_who_is_not_slow() -> None:
    async def scenario() -> None:
        uploads = Uploads(ServerConfig(max_uploads=2, stall_seconds=600))
        with uploads.reading(0) as quick, uploads.reading(0) as slow:
            ends = asyncio.create_task(received(slow, pieces((600, 1))))
            goes_on = asyncio.create_task(received(quick, pieces(*[(0.05, 1000)] * 40)))
            await asyncio.sleep(0.2)
            with pytest.raises(QueueFull, match="Too many"), uploads.reading(0):
                pass
            began = time.monotonic()
            while time.monotonic() - began < 1:
                await asyncio.sleep(0.1)
            with uploads.reading(0):
                with pytest.raises(TooSlow):
                    await ends
                assert await goes_on == 40_000

    asyncio.run(scenario())
