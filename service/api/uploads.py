"""A request's body -> a spooled file and its form fields, with the limit held while reading."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.api.services import services_of
from service.config import ServerConfig
from service.errors import DeadlineExceeded, InvalidAudio, InvalidRequest, TooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

SPOOL_BYTES = 4 * 1024 * 1024  # above it an upload goes to disk
WRITE_BYTES = 1024 * 1024  # what is written there at once
MAX_FIELDS = 256  # a list of OpenAI's has a field for each of its values
MAX_FIELD_BYTES = 16 * 1024
UNREAD = "known_speaker_references"  # whole recordings as text, of which nothing is wanted


@dataclass(frozen=True, slots=True)
class Upload:
    """The audio of a request, at its beginning, and the form fields beside it, in order."""

    audio: BinaryIO
    fields: tuple[tuple[str, str], ...]


def recording_openapi(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The OpenAPI of a route that takes a recording, as a form's `file` or raw, and parameters in
    the form, in the query string, or both."""
    recording = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": recording, **properties},
    }
    return {
        "parameters": [
            {"name": name, "in": "query", "schema": schema} for name, schema in properties.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "audio/*": {"schema": recording},
            },
        },
    }


@asynccontextmanager
async def read_upload(
    request: Request, config: ServerConfig, *, raw: bool = True
) -> AsyncIterator[Upload]:
    """Reads a multipart `file`, or (with `raw`) an `audio/*` body, into a spooled file.

    The file is closed when the context ends. Raises TooLarge as soon as `max_upload_mb` is
    declared or passed, InvalidAudio for nothing at all, InvalidRequest for another kind of body,
    DeadlineExceeded for a sender that takes longer than `deadline_seconds`, and Starlette's
    ClientDisconnect.
    """
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    if request.headers.get("content-length") == "0":
        raise InvalidAudio("The body is empty: send a recording.")
    chunks = _limited(request, config.max_upload_mb)
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as file:
        audio = cast(BinaryIO, file)
        spool = _Spool(audio)
        try:
            async with asyncio.timeout(config.deadline_seconds):
                if media_type == b"multipart/form-data":
                    fields = await _read_form(chunks, options.get(b"boundary", b""), spool)
                elif raw and _is_raw_audio(media_type):
                    fields = await _read_raw(chunks, spool)
                else:
                    raise InvalidRequest(_wrong_type(media_type, raw), "content-type")
                await spool.write()
        except TimeoutError:
            services_of(request).metrics.cancelled.labels("deadline").inc()
            raise DeadlineExceeded(
                f"The upload took longer than {config.deadline_seconds} s."
            ) from None
        if spool.num_bytes == 0:
            raise InvalidAudio("The recording is empty: it has no bytes.")
        audio.seek(0)
        yield Upload(audio, fields)


def _is_raw_audio(media_type: bytes) -> bool:
    # Some recorders label an mp4 or webm that holds sound only as video; content decides later.
    return media_type in (b"", b"application/octet-stream") or media_type.startswith(
        (b"audio/", b"video/")
    )


def _wrong_type(media_type: bytes, raw: bool) -> str:
    shown = media_type.decode("latin-1") or "none"
    hint = ", or the recording itself as audio/* or application/octet-stream" if raw else ""
    return f"Content-Type {shown}: send multipart/form-data with a part named 'file'{hint}."


async def _limited(request: Request, max_upload_mb: int) -> AsyncIterator[bytes]:
    limit = max_upload_mb * 1024 * 1024
    refusal = TooLarge(f"The upload is larger than the {max_upload_mb} MB that this server takes.")
    if int(request.headers.get("content-length", 0)) > limit:
        raise refusal
    seen = 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > limit:
            raise refusal
        yield chunk


class _Spool:
    """Fills a spooled file. What goes to disk is written by a thread: a slow disk is one upload's
    business, the loop is everyone's."""

    def __init__(self, file: BinaryIO) -> None:
        self.num_bytes = 0
        self._file = file
        self._pending = bytearray()

    def add(self, data: bytes) -> None:
        self.num_bytes += len(data)
        self._pending += data

    async def write(self, least: int = 1) -> None:
        """Writes what was added, if that is at least so many bytes."""
        if len(self._pending) < least:
            return
        pending, self._pending = self._pending, bytearray()
        if self.num_bytes <= SPOOL_BYTES:
            self._file.write(pending)
            return
        writing = asyncio.get_running_loop().run_in_executor(None, self._file.write, pending)
        try:
            await asyncio.shield(writing)
        finally:
            # Who cancels closes the file next, and the thread cannot be stopped.
            await asyncio.wait({writing})


async def _read_raw(chunks: AsyncIterator[bytes], spool: _Spool) -> tuple[tuple[str, str], ...]:
    async for chunk in chunks:
        spool.add(chunk)
        await spool.write(WRITE_BYTES)
    return ()


async def _read_form(
    chunks: AsyncIterator[bytes], boundary: bytes, spool: _Spool
) -> tuple[tuple[str, str], ...]:
    if not boundary:
        raise InvalidRequest("multipart/form-data without a boundary.", "content-type")
    form = _Form(spool)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in chunks:
            parser.write(chunk)
            await spool.write(WRITE_BYTES)
    except FormParserError as error:
        raise InvalidRequest(f"The multipart body is malformed: {error}.") from error
    if not form.ended:
        raise InvalidRequest("The multipart body breaks off before its closing boundary.")
    if not form.has_file:
        raise InvalidRequest("Send the recording as a part named 'file'.", "file")
    return tuple(form.fields)


class _Form:
    """Receives the parser's callbacks: the part `file` goes to the spool, others to memory."""

    def __init__(self, spool: _Spool) -> None:
        self.fields: list[tuple[str, str]] = []
        self.has_file = False
        self.ended = False
        self._spool = spool
        self._header = bytearray()
        self._header_value = bytearray()
        self._name: str | None = None
        self._value = bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_data,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._name = None
        self._value.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_data(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._header_value))
            if b"name" in options:
                self._name = options[b"name"].decode("utf-8", "replace")
        self._header.clear()
        self._header_value.clear()

    def _headers_finished(self) -> None:
        if self._name is None:
            raise InvalidRequest("A part of the multipart body has no name.")
        if self._name == "file" and self.has_file:
            raise InvalidRequest("Send one 'file' per request.", "file")
        self.has_file = self.has_file or self._name == "file"
        if len(self.fields) >= MAX_FIELDS:
            raise InvalidRequest(f"More than {MAX_FIELDS} form fields.")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._spool.add(data[start:end])
            return
        if self._name is not None and self._name.startswith(UNREAD):
            end = min(end, start + MAX_FIELD_BYTES - len(self._value))
        if len(self._value) + end - start > MAX_FIELD_BYTES:
            raise InvalidRequest(
                f"{self._name}: longer than {MAX_FIELD_BYTES} bytes; audio belongs in 'file'.",
                self._name,
            )
        self._value += data[start:end]

    def _part_end(self) -> None:
        if self._name != "file" and self._name is not None:
            self.fields.append((self._name, self._value.decode("utf-8", "replace")))

    def _end(self) -> None:
        self.ended = True
