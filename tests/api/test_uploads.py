"""Bodies large enough to go to disk, read by what reads them for every route."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import IO, Any

import pytest
from fastapi import Request

from service.api.pace import Uploads
from service.api.uploads import SPOOL_BYTES, WRITE_BYTES, Upload, read_upload
from service.config import ServerConfig
from service.errors import DeadlineExceeded, StorageFull, TooLarge
from service.metrics import Metrics

from .harness import PATIENCE_S, Running, refused, voice

RAW = "audio/wav"
FORM = "multipart/form-data; boundary=b"
HEAD = b'--b\r\nContent-Disposition: form-data; name="profile"\r\n\r\nfast\r\n'
HEAD += b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
TAIL = b"\r\n--b--\r\n"
SIZES = (1, WRITE_BYTES - 1, SPOOL_BYTES, SPOOL_BYTES + 1, 2 * SPOOL_BYTES + 12_345)


class Body:
    """A request whose body comes in pieces; `num_sent` counts its bytes."""

    def __init__(self, media_type: str, pieces: Iterator[bytes]) -> None:
        self.num_sent = 0
        self._pieces = pieces
        scope = {"type": "http", "headers": [(b"content-type", media_type.encode())]}
        services = SimpleNamespace(metrics=Metrics(), uploads=Uploads(ServerConfig()))
        app = SimpleNamespace(state=SimpleNamespace(services=services))
        self.request = Request(scope | {"app": app}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        piece = next(self._pieces, b"")
        self.num_sent += len(piece)
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}


def in_pieces(content: bytes, seed: int = 0) -> Iterator[bytes]:
    """As a network hands them over: of any length up to 64 KB."""
    draw, at = random.Random(seed), 0
    while at < len(content):
        size = draw.randint(1, 65_536)
        yield content[at : at + size]
        at += size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("media_type", [RAW, FORM])
def test_what_was_sent_is_what_is_read(media_type: str, size: int) -> None:
    sound = random.Random(size).randbytes(size)
    content = HEAD + sound + TAIL if media_type == FORM else sound

    async def scenario() -> tuple[bytes, Upload]:
        body = Body(media_type, in_pieces(content))
        async with read_upload(body.request, ServerConfig()) as upload:
            return upload.audio.read(), upload

    received, upload = asyncio.run(scenario())
    assert received == sound
    assert upload.audio.closed
    assert upload.fields == ((("profile", "fast"),) if media_type == FORM else ())


@pytest.mark.parametrize("media_type", [RAW, FORM])
def test_an_endless_upload_is_cut_off_on_disk_too(media_type: str) -> None:
    def pieces() -> Iterator[bytes]:
        if media_type == FORM:
            yield HEAD
        while True:
            yield bytes(65_536)

    body = Body(media_type, pieces())

    async def scenario() -> None:
        with pytest.raises(TooLarge, match="6 MB"):
            async with read_upload(body.request, ServerConfig(max_upload_mb=6)):
                pass

    asyncio.run(scenario())
    assert 6 << 20 < body.num_sent <= (6 << 20) + 65_536


class SlowDisk:
    """Spooled files whose writes to disk take until they are released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.release = threading.Event(), threading.Event()
        self.sizes: list[int] = []
        self.files: list[IO[bytes]] = []
        disk = self

        class SlowFile(tempfile.SpooledTemporaryFile[bytes]):
            def __init__(self, *, max_size: int) -> None:
                super().__init__(max_size=max_size)
                disk.files.append(self)

            def write(self, data: bytes) -> int:  # type: ignore[override]
                if self.tell() + len(data) > SPOOL_BYTES:
                    disk.sizes.append(len(data))
                    disk.reached.set()
                    assert disk.release.wait(PATIENCE_S / 4)
                return super().write(data)

        monkeypatch.setattr(tempfile, "SpooledTemporaryFile", SlowFile)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


async def read(body: Body, deadline_seconds: int = 900) -> int:
    config = ServerConfig(deadline_seconds=deadline_seconds)
    async with read_upload(body.request, config) as upload:
        return len(upload.audio.read())


def test_a_slow_disk_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch)

    async def scenario() -> None:
        size = 3 * SPOOL_BYTES
        slow = asyncio.create_task(read(Body(RAW, in_pieces(bytes(size)))))
        await until(disk.reached.is_set)
        assert await read(Body(RAW, in_pieces(bytes(WRITE_BYTES)))) == WRITE_BYTES
        assert not slow.done()
        disk.release.set()
        assert await slow == size

    asyncio.run(scenario())
    assert all(size >= WRITE_BYTES for size in disk.sizes[:-1])


@pytest.mark.parametrize("late", [True, False], ids=["late", "cancelled"])
def test_a_file_is_not_closed_while_it_is_written(
    monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    disk = SlowDisk(monkeypatch)
    ended = DeadlineExceeded if late else asyncio.CancelledError

    async def scenario() -> None:
        body = Body(RAW, in_pieces(bytes(2 * SPOOL_BYTES)))
        work = asyncio.create_task(read(body, deadline_seconds=1 if late else 900))
        await until(disk.reached.is_set)
        if late:
            await asyncio.sleep(1.1)
        else:
            work.cancel()
            await asyncio.sleep(0.05)
        assert not work.done()
        assert not disk.files[0].closed
        disk.release.set()
        with pytest.raises(ended):
            await work
        assert disk.files[0].closed

    asyncio.run(scenario())


class FullDisk(io.RawIOBase):
    """A file on a disk with room for so many bytes, below the buffers of Python's files."""

    def __init__(self, room: int) -> None:
        self._stored = io.BytesIO()
        self._room = room

    def write(self, data: Any, /) -> int:
        if self._stored.tell() + len(data) > self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._stored.write(data)

    def readinto(self, into: Any, /) -> int:
        return self._stored.readinto(into)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._stored.seek(offset, whence)

    def readable(self) -> bool:
        return True

    writable = seekable = readable


def disk_with(room: int, monkeypatch: pytest.MonkeyPatch) -> list[io.BufferedRandom]:
    """The files that uploads make from now on."""
    files: list[io.BufferedRandom] = []

    def make(**_: Any) -> io.BufferedRandom:
        files.append(io.BufferedRandom(FullDisk(room)))
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", make)
    return files


@pytest.mark.parametrize("media_type", [RAW, FORM])
@pytest.mark.parametrize("room", [0, 2 * SPOOL_BYTES])
def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, media_type: str, room: int) -> None:
    files = disk_with(room, monkeypatch)
    sound = bytes(3 * SPOOL_BYTES)
    content = HEAD + sound + TAIL if media_type == FORM else sound
    with pytest.raises(StorageFull, match="no room") as full:
        asyncio.run(read(Body(media_type, in_pieces(content))))
    assert full.value.retry_after_s > 1
    assert len(files) == 1


def test_what_a_file_holds_back_is_written_before_it_counts_as_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.api.uploads.SPOOL_BYTES", 100)
    files = disk_with(WRITE_BYTES + 50, monkeypatch)
    with pytest.raises(StorageFull):
        asyncio.run(read(Body(RAW, iter([bytes(WRITE_BYTES), bytes(100)]))))
    assert files[0].closed


def test_an_upload_that_does_not_fit_is_507(
    shared: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.uploads.SPOOL_BYTES", 1000)
    disk_with(0, monkeypatch)
    answer = shared.transcribe(voice(1))
    assert "no room" in refused(answer, 507, "storage_full")
    assert int(answer.headers["retry-after"]) > 1
    monkeypatch.undo()
    assert shared.transcribe(voice(1)).status_code == 200
