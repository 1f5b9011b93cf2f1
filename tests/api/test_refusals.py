"""What `POST /transcribe` says to parameters, bodies and audio that it cannot use."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from .harness import Running, refused, silence, voice


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("profile", "warp", "dense, balanced, fast"),
        ("language", "klingon", "en, de, fr"),
        ("task", "sing", "transcribe, translate"),
        ("response_format", "yaml", "json, text"),
        ("temperature", "1.1", "from 0 to 1"),
        ("temperature", "-1", "from 0 to 1"),
        ("temperature", "nan", "from 0 to 1"),
        ("temperature", "warm", "from 0 to 1"),
        ("vad", "maybe", "true, 1, yes, on, false, 0, no, off"),
        ("timeout", "0", "more than 0 to 900"),
        ("timeout", "901", "more than 0 to 900"),
        ("timeout", "inf", "more than 0 to 900"),
        (
            "profil",
            "fast",
            "profile, language, languages, task, temperature, prompt, hotwords, keywords",
        ),
        ("channels", "left", "mix, split"),
        ("stream", "maybe", "true, 1, yes, on, false, 0, no, off"),
        ("max_line_width", "40", "srt or vtt"),
    ],
)
@pytest.mark.parametrize("where", ["form", "query"])
def test_a_wrong_parameter_is_named_and_the_valid_values_listed(
    shared: Running, name: str, value: str, says: str, where: str
) -> None:
    form, query = ({name: value}, {}) if where == "form" else ({}, {name: value})
    answer = shared.client.post("/transcribe", files={"file": voice(0.1)}, data=form, params=query)
    assert says in refused(answer, 400, "invalid_request", name)


def test_a_parameter_given_twice_is_refused(shared: Running) -> None:
    answer = shared.client.post(
        "/transcribe?profile=fast", files={"file": voice(0.1)}, data={"profile": "dense"}
    )
    assert "more than once" in refused(answer, 400, "invalid_request", "profile")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"this is not audio, whatever it says it is",
        voice(0.2)[:30],
        silence(0),
        b"\x00" * 5000,
        b"\xff\xfb\x90\x00" + b"\x55" * 300,
    ],
    ids=["empty", "text", "truncated", "no samples", "zeros", "broken mp3"],
)
@pytest.mark.parametrize("way", ["multipart", "raw"])
def test_what_is_not_audio_is_refused(shared: Running, body: bytes, way: str) -> None:
    if way == "raw":
        answer = shared.client.post(
            "/transcribe", content=body, headers={"content-type": "audio/wav"}
        )
    else:
        answer = shared.transcribe(body)
    assert refused(answer, 400, "invalid_audio")


def test_samples_that_are_no_numbers_are_refused(shared: Running) -> None:
    samples = np.full(16000, 0.1, dtype=np.float32)
    samples[8000] = np.nan
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", subtype="FLOAT")
    assert "NaN" in refused(shared.transcribe(file.getvalue()), 400, "invalid_audio")


def test_a_body_of_another_kind_is_refused(shared: Running) -> None:
    answer = shared.client.post("/transcribe", json={"file": "speech.wav"})
    message = refused(answer, 400, "invalid_request", "content-type")
    assert "multipart/form-data" in message
    assert "audio/*" in message


BOUNDARY = "frontier"
FILE_PART = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (f"--{BOUNDARY}--\r\n", "file", "part named 'file'"),
        ("no boundary here", None, "malformed"),
        (FILE_PART + "RIFF", None, "breaks off"),
        (f"--{BOUNDARY}\r\nContent-Type: a/b\r\n\r\nx\r\n--{BOUNDARY}--\r\n", None, "no name"),
        (f"{FILE_PART}a\r\n{FILE_PART}b\r\n--{BOUNDARY}--\r\n", "file", "one 'file'"),
        (
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=profile\r\n\r\n"
            + "f" * 20_000
            + f"\r\n--{BOUNDARY}--\r\n",
            "profile",
            "longer than",
        ),
        (
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=profile\r\n\r\n\r\n" * 257,
            None,
            "More than 256",
        ),
    ],
    ids=["no file", "no multipart", "cut off", "nameless", "two files", "long field", "many"],
)
def test_a_malformed_form_is_refused(
    shared: Running, body: str, param: str | None, says: str
) -> None:
    answer = shared.client.post(
        "/transcribe",
        content=body,
        headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    assert says in refused(answer, 400, "invalid_request", param)


def test_a_form_without_a_boundary_is_refused(shared: Running) -> None:
    answer = shared.client.post(
        "/transcribe", content=b"x", headers={"content-type": "multipart/form-data"}
    )
    assert "boundary" in refused(answer, 400, "invalid_request", "content-type")


def test_audio_longer_than_allowed_is_refused_though_its_file_is_small(shared: Running) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(61 * 8000), 8000, format="FLAC")
    assert len(file.getvalue()) < 1_000_000
    assert "60" in refused(shared.transcribe(file.getvalue()), 413, "payload_too_large")
