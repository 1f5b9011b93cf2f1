"""`POST /detect-language` over real HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from service.families.fake import FakeModel

from .conftest import StartServer
from .harness import DigitsModel, EnglishModel, Running, refused, silence, voice


@pytest.mark.parametrize("way", ["multipart", "raw"])
def test_the_language_is_detected(shared: Running, way: str) -> None:
    sent: dict[str, Any] = (
        {"files": {"file": voice(2)}} if way == "multipart" else {"content": voice(2)}
    )
    body = shared.client.post("/detect-language?profile=fast", **sent).json()
    assert body == {
        "language": "en",
        "probability": 0.5,
        "probabilities": {"en": 0.5, "fr": 0.375, "de": 0.125},
        "duration": 2.0,
        "model": "fake",
        "profile": "fast",
    }
    assert list(body["probabilities"]) == ["en", "fr", "de"]


def test_only_the_languages_named_are_considered(shared: Running) -> None:
    answer = shared.client.post(
        "/detect-language", params={"languages": "de-DE,French"}, content=voice(2)
    )
    assert answer.json()["probabilities"] == {"fr": 0.75, "de": 0.25}
    refused(
        shared.client.post("/detect-language?languages=xx", content=voice(1)),
        *(400, "invalid_request", "languages"),
    )


def test_silence_has_no_language(shared: Running) -> None:
    body = shared.client.post("/detect-language", content=silence(2)).json()
    assert (body["language"], body["probability"], body["probabilities"]) == (None, 0.0, {})


def test_only_the_first_window_is_encoded_for_the_language(server: StartServer) -> None:
    one = server(max_audio_seconds=60)
    assert one.client.post("/detect-language", content=voice(50)).status_code == 200
    one.eventually(lambda: one.metric("winnow_frames_total", profile="dense", outcome="kept") > 0)
    assert one.metric("winnow_frames_total", profile="dense", outcome="kept") == 1500


@pytest.mark.parametrize("model", [EnglishModel, DigitsModel])
def test_a_model_of_one_language_has_none_to_detect(
    server: StartServer, model: type[FakeModel]
) -> None:
    answer = server(model).client.post("/detect-language", content=voice(1))
    assert "one language only" in refused(answer, 400, "invalid_request")


def test_detection_takes_no_other_parameter(shared: Running) -> None:
    answer = shared.client.post("/detect-language?language=en", content=voice(1))
    assert "profile, languages, timeout" in refused(answer, 400, "invalid_request", "language")
