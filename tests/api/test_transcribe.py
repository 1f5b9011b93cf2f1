"""`POST /transcribe` over real HTTP: its answers and its parameters."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from service.families.fake import FakeModel
from service.types import SAMPLE_RATE, Piece

from .conftest import StartServer
from .harness import Running, refused, silence, voice, wav

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
    ("asked", "language"),
    [
        ({"language": "de-DE"}, "de"),
        ({"language": "auto"}, "en"),
        ({"language": ""}, "en"),
        ({"languages[]": "fra"}, "fr"),
        ({"languages": "de, fr"}, "fr"),
    ],
)
def test_a_language_in_the_spellings_of_clients(
    shared: Running, asked: dict[str, str], language: str
) -> None:
    assert shared.transcribe(voice(1), **asked).json()["language"] == language


class HastyModel(FakeModel):
    """The fake model, but no text takes any time."""

    def split_text(self, tokens: Sequence[int]) -> list[Piece]:
        return [replace(piece, end_s=piece.start_s) for piece in super().split_text(tokens)]


@pytest.mark.parametrize("path", ["/transcribe", "/v1/audio/transcriptions"])
def test_every_segment_word_and_cue_has_a_length(server: StartServer, path: str) -> None:
    client = server(HastyModel).client
    sent: dict[str, Any] = {"files": {"file": voice(40)}}
    asked = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    if path.startswith("/v1"):
        asked["model"] = "fake"
    body = client.post(path, data=asked, **sent).json()
    assert len(body["segments"]) >= 2
    for spans in (body["segments"], body["words"]):
        assert all(one["end"] - one["start"] > 0.019 for one in spans)
        assert all(before["end"] <= after["start"] for before, after in pairwise(spans))
        assert all(0 <= one["start"] < one["end"] <= 40 for one in spans)
    srt = client.post(path, data=asked | {"response_format": "srt"}, **sent).text
    arrows = [line.split(" --> ") for line in srt.splitlines() if " --> " in line]
    times = [time for arrow in arrows for time in arrow]
    assert times == sorted(times)
    assert all(start < end for start, end in arrows)


@pytest.mark.parametrize(
    "asked",
    [
        {"word_timestamps": "true"},
        {"timestamp_granularities[]": "word"},
        {"timestamp_granularities": "segment,word"},
        {"timestamp_granularities[0]": "word"},
    ],
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


@pytest.mark.parametrize(
    ("response_format", "content_type", "silent"),
    [
        ("json", "application/json", None),
        ("verbose_json", "application/json", None),
        ("text", "text/plain; charset=utf-8", "\n"),
        ("srt", "application/x-subrip; charset=utf-8", ""),
        ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n\n"),
        ("tsv", "text/tab-separated-values; charset=utf-8", "start\tend\ttext\n"),
    ],
)
def test_every_format_has_its_content_type_and_invents_nothing(
    shared: Running, response_format: str, content_type: str, silent: str | None
) -> None:
    answer = shared.transcribe(voice(2), response_format=response_format)
    assert answer.headers["content-type"] == content_type
    assert shared.transcribe(voice(2)).json()["text"] in answer.text
    quiet = shared.transcribe(silence(2), response_format=response_format)
    if silent is None:
        assert (quiet.json()["text"], quiet.json()["segments"]) == ("", [])
    else:
        assert quiet.text == silent


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("max_line_width", "9", "10 to 1000"),
        ("max_line_width", "1001", "10 to 1000"),
        ("max_line_width", "00000000409999", "10 to 1000"),  # its first ten digits are 40
        ("max_line_width", "40.5", "10 to 1000"),
        ("max_line_width", "²0", "10 to 1000"),
        ("max_line_count", "2", "needs max_line_width"),
        ("max_words_per_line", "-1", "1 to 1000"),
    ],
)
def test_a_line_length_that_cannot_be_used_is_refused(
    shared: Running, name: str, value: str, says: str
) -> None:
    answer = shared.transcribe(voice(0.1), response_format="srt", **{name: value})
    assert says in refused(answer, 400, "invalid_request", name)


def tone(hertz: float, *spans: tuple[int, int], seconds: int = 14) -> npt.NDArray[np.float64]:
    """A tone in those spans of seconds, silence elsewhere."""
    times_s = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    sounds = sum((first <= times_s) & (times_s < last) for first, last in spans)
    return 0.3 * np.sin(2 * np.pi * hertz * times_s) * sounds


def test_the_channels_of_a_call_are_heard_apart(shared: Running) -> None:
    left, right = tone(300, (0, 4), (9, 12)), tone(4000, (3, 8), (10, 12))
    call = wav(np.stack([left, right], axis=1))
    options = {"channels": "split", "vad": "false"}
    body = shared.transcribe(call, **options).json()
    turns = [(s["channel"], s["start"], s["end"]) for s in body["segments"]]
    assert turns == [(0, 0, 4), (1, 3, 8), (0, 9, 12), (1, 10, 12)]
    for number, samples in enumerate((left, right)):
        alone = shared.transcribe(wav(samples), vad="false").json()
        heard = [s["text"] for s in body["segments"] if s["channel"] == number]
        assert heard == [s["text"] for s in alone["segments"]]
    lines = [line.split(":")[0] for line in body["text"].splitlines()]
    assert lines == ["Channel 1", "Channel 2", "Channel 1", "Channel 2"]
    assert body["duration"] == 14
    srt = shared.transcribe(call, response_format="srt", **options).text
    assert srt.count("Channel 1: ") == srt.count("Channel 2: ") == 2
    tsv = shared.transcribe(call, response_format="tsv", **options).text
    assert [row.split("\t")[3] for row in tsv.splitlines()] == ["channel", "0", "1", "0", "1"]
    streamed = shared.transcribe(call, stream="true", **options).text
    events = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: ")]
    assert "".join(event.get("delta", "") for event in events) == body["text"]


def test_a_mono_recording_has_one_channel(shared: Running) -> None:
    body = shared.transcribe(wav(tone(300, (0, 4))), channels="split", vad="false").json()
    assert [segment["channel"] for segment in body["segments"]] == [0]
    assert "channel" not in shared.transcribe(voice(1)).json()["segments"][0]


def test_all_channels_together_count_against_the_limit(shared: Running) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((10 * SAMPLE_RATE, 8)), SAMPLE_RATE, format="FLAC")
    assert shared.transcribe(file.getvalue()).json()["duration"] == 10
    message = refused(
        shared.transcribe(file.getvalue(), channels="split"), 413, "payload_too_large"
    )
    assert "8 channels together" in message
    nine = shared.transcribe(wav(np.zeros((1000, 9))), channels="split")
    assert "at most 8 channels" in refused(nine, 400, "invalid_request", "channels")


def test_task_reaches_the_model(shared: Running) -> None:
    transcribed = shared.transcribe(voice(1)).json()["text"]
    assert shared.transcribe(voice(1), task="translate").json()["text"] == transcribed.upper()


def test_silence_has_no_text(shared: Running) -> None:
    body = shared.transcribe(silence(2)).json()
    assert (body["text"], body["segments"], body["duration"]) == ("", [], 2.0)


def test_a_blank_form_field_is_not_given(shared: Running) -> None:
    assert shared.transcribe(voice(1), language="", profile="").json()["profile"] == "dense"


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
