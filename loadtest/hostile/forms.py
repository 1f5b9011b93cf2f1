"""Requests whose file is in order and whose form, query or head is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from random import Random

from loadtest.hostile.damage import damaged
from loadtest.hostile.files import (
    BOUNDARY,
    DETECT,
    OPENAI,
    TRANSCRIBE,
    TRANSLATE,
    form_head,
    multipart,
    part,
)
from loadtest.hostile.recordings import recording
from loadtest.hostile.trials import Due, Made, Send, Target

PATHS = (TRANSCRIBE, TRANSCRIBE, OPENAI, OPENAI, TRANSLATE, DETECT)
NAMES = (  # without `timeout`: who asks for an answer at once is owed a 504
    *("file", "model", "profile", "language", "temperature", "prompt", "hotwords", "vad"),
    *("beam_size", "patience", "length_penalty", "seed", "prefix", "suppress_tokens", "task"),
    *("word_timestamps", "timestamp_granularities[]", "channels", "response_format", "stream"),
    *("max_line_width", "max_line_count", "max_words_per_line", "strict", "include[]", "chunking_"
      "strategy", "languages[]", "keywords[]", "known_speaker_names[]", "user", "", "file[]",
      "a.b"),
)  # fmt: skip
VALUES = (
    *("", " ", "0", "-1", "1e999", "nan", "inf", "9" * 5000, "0x10", "\u0663", "true", "null",
      "[]"),
    *("{}", '{"type":"server_vad","threshold":1e400}', "whisper-1", "whisper-1@", "@fast", "en-US"),
    *("json", "\u0000", "\U0001f600"),
    *("a\r\nX-Evil: 1", "../../etc/passwd", "%00", "'; DROP TABLE", "\u202e\u0130", "auto", "eng"),
    *("-1,-1", "1," * 3000, "A" * 100_000, "word,segment", "\ufeff", "1_000", "+5", "1.0", "1e-9"),
)  # fmt: skip


def form_trial(rng: Random, target: Target) -> Made:
    """One form that is wrong somewhere."""
    what, make = rng.choice(FORMS)
    path, sends, due = make(rng, target)
    return what, path, sends, due


Form = tuple[str, tuple[Send, ...], Due]


@cache
def _sound() -> bytes:
    return recording("mp3/libmp3lame/16000")


def _request(target: Target, path: str, body: bytes, kind: str, **headers: str) -> Form:
    """A request with its right length. What it says of itself may be wrong."""
    lines: dict[str, str | int] = {"Content-Type": kind, "Content-Length": len(body)}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    return path, (Send(target.head("POST", path, lines) + body),), Due.ANSWER


def _form(target: Target, path: str, body: bytes) -> Form:
    return path, (Send(form_head(target, path, len(body)) + body),), Due.ANSWER


def _ended(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _file_part(name: str = "a.mp3") -> bytes:
    return part(f'form-data; name="file"; filename="{name}"', _sound())


def _values(rng: Random, target: Target) -> Form:
    fields = [(rng.choice(NAMES), rng.choice(VALUES)) for _ in range(rng.choice((1, 2, 5)))]
    model = [("model", "whisper-1")] if rng.random() < 0.5 else []
    return _form(target, rng.choice(PATHS), multipart(model + fields, _sound(), "a", "audio/mpeg"))


def _query(rng: Random, target: Target) -> Form:
    junk = ("%", "%zz", "&&&==", "a=%ff", "profile=fast&profile=dense", "x" * 9000, "?;#", "=1",
            "&".join("vad=1" for _ in range(900)), "language=%00",
            "temperature=0;stream=1")  # fmt: skip
    path = f"{rng.choice((TRANSCRIBE, OPENAI, DETECT))}?{rng.choice(junk)}"
    return _request(target, path, _sound(), "audio/mpeg")


def _many(rng: Random, target: Target) -> Form:
    name = rng.choice(("prompt", "timestamp_granularities[]", "file", "x"))
    count = rng.choice((2, 200, 1001, 5000))
    fields = [part(f'form-data; name="{name}"', b"1") for _ in range(count)]
    return _form(target, rng.choice(PATHS), _ended(*fields, _file_part()))


def _huge(rng: Random, target: Target) -> Form:
    size = rng.choice((70_000, 1_100_000))
    where = rng.choice(("value", "name", "filename", "header"))
    filler = rng.choice(("a", "\u20ac")) * size
    made = {
        "value": lambda: part('form-data; name="prompt"', filler.encode()),
        "name": lambda: part(f'form-data; name="{filler}"', b"1"),
        "filename": lambda: _file_part(filler),
        "header": lambda: part(f'form-data; name="prompt"\r\nX-Long: {filler}', b"1"),
    }[where]()
    return _form(target, rng.choice(PATHS), _ended(made, _file_part()))


def _dispositions(rng: Random, target: Target) -> Form:
    odd = rng.choice(
        ("form-data", "form-data; name", "form-data; name=", "form-data; name=file", "attachment",
         'form-data; name="file"; filename="', 'form-data; name="file"; filename*=UTF-8\'\'%ff%00',
         'form-data; name="file"; name="file"; filename="a"', 'form-data; name="\\"; filename="a"',
         'form-data; name="file"; filename="../../a"', 'form-data; name="f\u0000le"; filename="a"',
         'form-data; name="file"', "; ; ;", "", 'form-data; name="\udcff\udcfe"; filename="\udcff"',
         'form-data; name="file"; filename=""', "form-data;" + " x=1;" * 3000)
    )  # fmt: skip
    return _form(target, rng.choice(PATHS), _ended(part(odd, _sound()), _file_part()))


def _headers(rng: Random, target: Target) -> Form:
    odd = rng.choice(
        (b"", b"Content-Disposition", b": form-data", b"\xff\xfe: 1", b"A: 1\r\n" * 500, b"\0: \0",
         b"Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n folded: 1",
         b"Content-Transfer-Encoding: base64\r\nContent-Disposition: form-data; name=\"file\"")
    )  # fmt: skip
    body = f"--{BOUNDARY}\r\n".encode() + odd + b"\r\n\r\n" + _sound() + b"\r\n"
    return _form(target, rng.choice(PATHS), _ended(body, _file_part()))


def _boundaries(rng: Random, target: Target) -> Form:
    said = rng.choice(
        ("", "; boundary", "; boundary=", '; boundary=""', "; boundary=other", "; boundary=\u00fc",
         f"; boundary={'b' * 300}", f"; boundary={BOUNDARY}; boundary=x", "; boundary=a b",
         f'; boundary="{BOUNDARY}', f"; charset=utf-16; boundary={BOUNDARY}", "; boundary=--",
         f"; boundary={BOUNDARY}\t", f";;; boundary={BOUNDARY}", "; boundary=\\\"")
    )  # fmt: skip
    body = multipart([("model", "whisper-1")], _sound(), "a.mp3", "audio/mpeg")
    return _request(target, rng.choice(PATHS), body, f"multipart/form-data{said}")


def _ends(rng: Random, target: Target) -> Form:
    body = multipart([("model", "whisper-1")], _sound(), "a.mp3", "audio/mpeg")
    made = rng.choice(
        (body[:-8], body[: -len(BOUNDARY) - 8], body.replace(b"\r\n", b"\n"), b"\r\n\r\n" + body,
         body + body, body + bytes(5000), b"", b"--", f"--{BOUNDARY}--\r\n".encode(), body[1:],
         body.replace(b"\r\n\r\n", b"\r\n", 1), b"preamble\r\n" + body)
    )  # fmt: skip
    return _form(target, rng.choice(PATHS), made)


def _damaged(rng: Random, target: Target) -> Form:
    fields = [("model", "whisper-1"), (rng.choice(NAMES), rng.choice(VALUES[:10]))]
    body, _ = damaged(multipart(fields, _sound()[:600], "a.mp3", "audio/mpeg"), rng)
    return _form(target, rng.choice(PATHS), body)


def _types(rng: Random, target: Target) -> Form:
    kind = rng.choice(
        ("", "application/json", "application/x-www-form-urlencoded", "multipart/mixed",
         "text/html",
         "multipart/form-data", "audio/", "/", "a" * 5000, "audio/wav; charset=\u00ff", "*/*",
         "multipart/related; boundary=x", "application/octet-stream, audio/wav")
    )  # fmt: skip
    body = rng.choice(
        (_sound(), b"{}", b"[" * 50_000, b"file=a&model=whisper-1", b"a=" * 5000, b"",
         json.dumps({"file": "a", "model": "whisper-1"}).encode())
    )  # fmt: skip
    return _request(target, rng.choice(PATHS), body, kind)


def _encodings(rng: Random, target: Target) -> Form:
    encoding = rng.choice(("gzip", "br", "deflate", "zstd", "identity", "gzip, gzip", "x", ""))
    return _request(
        target, rng.choice((TRANSCRIBE, OPENAI)), _sound(), "audio/mpeg", Content_Encoding=encoding
    )


def _chunked(rng: Random, target: Target) -> Form:
    """The body in chunks of any size, of one byte too."""
    path = rng.choice((TRANSCRIBE, OPENAI))
    body = multipart(
        [("model", "whisper-1")] if path == OPENAI else [], _sound(), "a", "audio/mpeg"
    )
    size = rng.choice((1, 2, 7, 1000, len(body)))
    extension = rng.choice((b"", b";a=b", b";" + b"x" * 200)) if size > 100 else b""
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    made = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    trailer = rng.choice((b"", b"X-Trailer: 1\r\n"))
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    head = target.head("POST", path, {"Content-Type": kind, "Transfer-Encoding": "chunked"})
    return path, (Send(head + made + b"0\r\n" + trailer + b"\r\n"),), Due.ANSWER


def _lengths(rng: Random, target: Target) -> Form:
    """More is announced than comes, and the client says that no more comes."""
    path = rng.choice(PATHS)
    body = multipart([("model", "whisper-1")], _sound(), "a.mp3", "audio/mpeg")
    more = rng.choice((1, 1000, 10**12))
    return path, (Send(form_head(target, path, len(body) + more) + body),), Due.END


FORMS: tuple[tuple[str, Callable[[Random, Target], Form]], ...] = (
    ("values that mean nothing", _values),
    ("more values that mean nothing", _values),
    ("an odd query", _query),
    ("a field many times", _many),
    ("a huge part", _huge),
    ("an odd disposition", _dispositions),
    ("odd headers of a part", _headers),
    ("an odd boundary", _boundaries),
    ("an odd end", _ends),
    ("a damaged form", _damaged),
    ("an odd content type", _types),
    ("an encoded body", _encodings),
    ("a body in chunks", _chunked),
    ("less than was announced", _lengths),
)
