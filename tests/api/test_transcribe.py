"""`POST /transcribe` over real HTTP: its answers, its parameters, and what bad ones get."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import soundfile

from .harness import Running, refused, silence, voice

SEGMENT_KEYS = {
    *("id", "start", "end", "text"),
    *("avg_logprob", "no_speech_prob", "compression_ratio", "temperature"),
}


def test_a_multipart_file_is_answered_in_full(shared: Running) -> None:
    answer = shared.transcribe(voice(3), profile="balanced", language="German")
    assert answer.status_code == 200
    body = answer.json()
    assert body["text"]
    assert (body["language"], body["duration"]) == ("de", 3.0)
    assert (body["model"], body["profile"]) == ("fake", "balanced")
    assert body["frames"] == {"total": 1500, "kept": 750}
    assert set(body["timings"]) == {"decode_audio", "queue", "mel", "encode", "decode", "total"}
    assert body["real_time_factor"] > 0
    assert body["fallbacks"] == []
    assert all(set(segment) == SEGMENT_KEYS for segment in body["segments"])
    assert body["segments"]


@pytest.mark.parametrize("content_type", ["audio/wav", "application/octet-stream", None])
def test_a_raw_body_gives_the_same_text(shared: Running, content_type: str | None) -> None:
    headers = {"content-type": content_type} if content_type else {}
    raw = shared.client.post(
        "/transcribe", params={"profile": "fast"}, content=voice(2), headers=headers
    )
    assert raw.status_code == 200
    assert raw.json()["profile"] == "fast"
    assert raw.json()["text"] == shared.transcribe(voice(2), profile="fast").json()["text"]


def test_parameters_of_a_form_may_stand_in_the_query(shared: Running) -> None:
    answer = shared.client.post(
        "/transcribe?profile=fast", files={"file": voice(1)}, data={"language": "fr"}
    )
    assert (answer.json()["profile"], answer.json()["language"]) == ("fast", "fr")


@pytest.mark.parametrize(
    "asked", [{"word_timestamps": "true"}, {"timestamp_granularities[]": "word"}]
)
def test_words_in_each_segment(shared: Running, asked: dict[str, str]) -> None:
    segments = shared.transcribe(voice(3), **asked).json()["segments"]
    assert segments
    for segment in segments:
        assert "".join(word["word"] for word in segment["words"]) == segment["text"]
        assert all(set(w) == {"word", "start", "end", "probability"} for w in segment["words"])
        assert segment["words"][0]["start"] == segment["start"]
        assert segment["words"][-1]["end"] == segment["end"]


def test_text_alone(shared: Running) -> None:
    answer = shared.transcribe(voice(1), response_format="text")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.strip() == shared.transcribe(voice(1)).json()["text"]


def test_task_reaches_the_model(shared: Running) -> None:
    transcribed = shared.transcribe(voice(1)).json()["text"]
    assert shared.transcribe(voice(1), task="translate").json()["text"] == transcribed.upper()


def test_silence_has_no_text(shared: Running) -> None:
    body = shared.transcribe(silence(2)).json()
    assert (body["text"], body["segments"], body["duration"]) == ("", [], 2.0)


def test_a_blank_form_field_is_not_given(shared: Running) -> None:
    assert shared.transcribe(voice(1), language="", profile="").json()["profile"] == "dense"


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
        ("profil", "fast", "profile, language, task, temperature, prompt, hotwords, beam_size"),
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
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=profile\r\n\r\n\r\n" * 65,
            None,
            "More than 64",
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


def test_every_answer_carries_an_id_and_its_time(shared: Running) -> None:
    for answer in (
        shared.client.get("/healthz", headers={"x-request-id": "my-Trace_1.0"}),
        shared.client.get("/nowhere", headers={"x-request-id": "my-Trace_1.0"}),
        shared.client.post("/transcribe", headers={"x-request-id": "my-Trace_1.0"}),
    ):
        assert answer.headers["x-request-id"] == "my-Trace_1.0"
        assert re.fullmatch(r"\d+", answer.headers["openai-processing-ms"])


@pytest.mark.parametrize("unfit", [b"", b"a b", "ä".encode(), b"x" * 129, b"a;b", b"<script>"])
def test_an_unfit_request_id_is_replaced(shared: Running, unfit: bytes) -> None:
    answer = shared.client.get("/healthz", headers=[(b"x-request-id", unfit)])
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_unknown_paths_and_methods_answer_in_the_same_shape(shared: Running) -> None:
    assert "/nowhere" in refused(shared.client.get("/nowhere"), 404, "not_found")
    wrong = shared.client.get("/transcribe")
    assert refused(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
