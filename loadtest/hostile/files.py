"""Recordings that are damaged, or were never any, uploaded as they should be."""

from __future__ import annotations

from random import Random

from loadtest.hostile.damage import damaged
from loadtest.hostile.recordings import recordings
from loadtest.hostile.structures import made_hard
from loadtest.hostile.trials import Due, Made, Send, Target

BOUNDARY = "----------------winnow0hostile"
TRANSCRIBE, DETECT = "/transcribe", "/detect-language"
OPENAI, TRANSLATE = "/v1/audio/transcriptions", "/v1/audio/translations"
MADE_HARD = 0.3  # share of the files
NAMES = ("a.wav", "a.mp3", "a.m4a", "a.webm", "a", "a.m3u8", "a.txt", "\u00e4.wav")
TYPES = ("application/octet-stream", "audio/wav", "audio/mpeg", "audio/webm", "video/mp4")


def file_trial(rng: Random, target: Target) -> Made:
    """One file to one of the routes."""
    content, what = _file(rng)
    path = rng.choices((TRANSCRIBE, OPENAI, DETECT, TRANSLATE), (6, 3, 1, 1))[0]
    fields = _fields(rng, path)
    if path in (TRANSCRIBE, DETECT) and rng.random() < 0.3:
        query = "&".join(f"{name}={value}" for name, value in fields)
        path = f"{path}?{query}" if query else path
        head = target.head(
            "POST", path, {"Content-Type": rng.choice(TYPES), "Content-Length": len(content)}
        )
        return what, path, (Send(head + content),), Due.ANSWER
    body = multipart(fields, content, rng.choice(NAMES), rng.choice(TYPES))
    return what, path, (Send(form_head(target, path, len(body)) + body),), Due.ANSWER


def form_head(target: Target, path: str, length: int) -> bytes:
    """The head of a form that comes with its length."""
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return target.head("POST", path, {"Content-Type": kind, "Content-Length": length})


def multipart(fields: list[tuple[str, str]], content: bytes, name: str, kind: str) -> bytes:
    """A form as it should be."""
    parts = [part(f'form-data; name="{field}"', value.encode()) for field, value in fields]
    parts.append(part(f'form-data; name="file"; filename="{name}"', content, kind))
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def part(disposition: str, content: bytes, kind: str | None = None) -> bytes:
    """One part of a form, from its boundary to its line break."""
    said = f"Content-Type: {kind}\r\n" if kind else ""
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n{said}\r\n"
    return head.encode("utf-8", "surrogateescape") + content + b"\r\n"


def _file(rng: Random) -> tuple[bytes, str]:
    if rng.random() < MADE_HARD:
        return made_hard(rng)
    base = rng.choice(recordings())
    other = rng.choice(recordings())
    content, name = base.content, base.name
    if rng.random() < 0.1:
        content, name = content + other.content, f"{name}, then {other.name}"
    content, damage = damaged(content, rng)
    return content, f"{name}: {damage}"


def _fields(rng: Random, path: str) -> list[tuple[str, str]]:
    if path in (OPENAI, TRANSLATE):
        form = rng.choice(("json", "text", "srt", "vtt", "verbose_json"))
        return [("model", "whisper-1"), ("response_format", form)]
    if path == DETECT:
        return []
    form = rng.choice(("json", "text", "srt", "vtt", "tsv", "verbose_json"))
    more = rng.choice(
        ([], [("vad", "false")], [("channels", "split")], [("word_timestamps", "true")],
         [("strict", "true")], [("profile", "fast")])
    )  # fmt: skip
    return [("response_format", form), *more]
