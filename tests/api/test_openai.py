"""The official `openai` client, unchanged, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from service.config import ALIASES
from service.families.fake import FakeModel
from service.model.protocol import ModelInfo
from service.profiles import BUILT_IN

from .conftest import StartServer
from .harness import DigitsModel, EnglishModel, Running, refused, remembered, silence, voice


@pytest.fixture
def client(shared: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def speech() -> tuple[str, bytes]:
    return ("speech.wav", voice(3))


@pytest.mark.parametrize("model", ["fake", "whisper-1", "fake@dense"])
def test_json(client: OpenAI, shared: Running, speech: tuple[str, bytes], model: str) -> None:
    answer = client.audio.transcriptions.create(model=model, file=speech, language="en")
    assert answer.text == shared.transcribe(speech[1]).json()["text"] != ""
    assert answer.usage is not None
    assert (answer.usage.type, getattr(answer.usage, "seconds", None)) == ("duration", 3)


def test_text(client: OpenAI, shared: Running, speech: tuple[str, bytes]) -> None:
    answer: Any = client.audio.transcriptions.create(
        model="fake", file=speech, response_format="text", temperature=0
    )
    assert answer.strip() == shared.transcribe(speech[1]).json()["text"]


def test_verbose_json(client: OpenAI, speech: tuple[str, bytes]) -> None:
    answer = client.audio.transcriptions.create(
        model="fake@fast",
        file=speech,
        response_format="verbose_json",
        timestamp_granularities=["segment"],
    )
    assert (answer.language, float(answer.duration)) == ("english", 3.0)
    assert answer.segments
    assert 0 <= answer.segments[0].start < answer.segments[-1].end <= 3.0
    assert "".join(segment.text for segment in answer.segments).strip() == answer.text


@pytest.mark.parametrize("granularities", [["word"], ["word", "segment"], ["segment"]])
def test_words_with_their_times(
    client: OpenAI, speech: tuple[str, bytes], granularities: list[Any]
) -> None:
    answer = client.audio.transcriptions.create(
        model="fake",
        file=speech,
        response_format="verbose_json",
        timestamp_granularities=granularities,
    )
    assert (answer.segments is not None) == ("segment" in granularities)
    assert (answer.words is not None) == ("word" in granularities)
    if answer.words is not None:
        assert " ".join(word.word for word in answer.words) == answer.text != ""
        assert [(word.start, word.end) for word in answer.words] == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("response_format", ["srt", "vtt"])
def test_subtitles(client: OpenAI, shared: Running, response_format: Any) -> None:
    audio = voice(9)
    answer: Any = client.audio.transcriptions.create(
        model="fake",
        file=("a.wav", audio),
        response_format=response_format,
        extra_body={"max_words_per_line": 2},
    )
    assert answer.startswith("WEBVTT\n\n" if response_format == "vtt" else "1\n00:00:0")
    assert answer.count("-->") >= 4
    assert (
        answer
        == shared.transcribe(audio, response_format=response_format, max_words_per_line="2").text
    )


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # by OpenAI, still there
@pytest.mark.parametrize("response_format", ["json", "text", "srt", "vtt", "verbose_json"])
def test_translations(client: OpenAI, shared: Running, response_format: Any) -> None:
    audio = voice(3)
    answer: Any = client.audio.translations.create(
        model="fake", file=("a.wav", audio), response_format=response_format
    )
    text = answer if isinstance(answer, str) else answer.text
    words = shared.transcribe(audio).json()["text"].upper()
    assert words in text
    if response_format == "verbose_json":
        assert answer.language == "english"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # by OpenAI, still there
@pytest.mark.parametrize("model", [EnglishModel, DigitsModel])
def test_an_english_only_model_does_not_translate(
    server: StartServer, model: type[FakeModel]
) -> None:
    one = server(model)
    with OpenAI(base_url=f"{one.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(BadRequestError, match="one language only") as refusal:
            client.audio.translations.create(model="fake", file=("a.wav", voice(1)))
        assert refusal.value.param == "model"


@pytest.mark.parametrize("param", ["language", "stream", "timestamp_granularities[]"])
def test_a_translation_takes_openais_parameters_alone(shared: Running, param: str) -> None:
    answer = shared.client.post(
        "/v1/audio/translations",
        files={"file": voice(0.1)},
        data={"model": "fake", param: "true"},
    )
    assert "Valid parameters: model" in refused(answer, 400, "invalid_request", param)


def test_silence_is_an_empty_text(client: OpenAI) -> None:
    answer = client.audio.transcriptions.create(model="fake", file=("a.wav", silence(1)))
    assert answer.text == ""


def test_the_profile_of_the_model_name_is_used(
    client: OpenAI, shared: Running, speech: tuple[str, bytes]
) -> None:
    def served(profile: str) -> float:
        return shared.metric(
            "winnow_requests_total",
            endpoint="/v1/audio/transcriptions",
            profile=profile,
            status="200",
        )

    before = served("balanced")
    client.audio.transcriptions.create(model="whisper-1@balanced", file=speech)
    shared.eventually(lambda: served("balanced") == before + 1)


@pytest.mark.parametrize("model", ["gpt-4o-transcribe-diarize", "gpt-4o@fast", "faked", "@"])
def test_an_unknown_model_is_not_found(
    client: OpenAI, speech: tuple[str, bytes], model: str
) -> None:
    with pytest.raises(NotFoundError) as refusal:
        client.audio.transcriptions.create(model=model, file=speech)
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")
    assert "fake, fake@dense, fake@balanced, fake@fast" in refusal.value.message


@pytest.mark.parametrize("model", ["fake@warp", "whisper-1@warp", "fake@", "whisper-1@"])
def test_an_unknown_profile_of_a_served_model_is_refused(
    client: OpenAI, speech: tuple[str, bytes], model: str
) -> None:
    with pytest.raises(BadRequestError) as refusal:
        client.audio.transcriptions.create(model=model, file=speech)
    assert (refusal.value.code, refusal.value.param) == ("invalid_request", "model")
    assert "use one of dense, balanced, fast" in refusal.value.message


@pytest.mark.parametrize(
    ("param", "value", "says"),
    [
        ("response_format", "tsv", "json, text, srt, verbose_json, vtt"),
        ("timestamp_granularities", ["phrase"], "segment, word"),
        ("temperature", 1.5, "from 0 to 1"),
        ("language", "xx", "en, de, fr"),
        ("languages", ["en", "xx"], "en, de, fr"),
        ("include", ["words"], "logprobs"),
        ("chunking_strategy", "vad", "auto, server_vad"),
        ("response_format", "diarized_json", "json, text, srt, verbose_json, vtt"),
    ],
)
def test_what_is_not_supported_is_refused_and_not_ignored(
    client: OpenAI, speech: tuple[str, bytes], param: str, value: Any, says: str
) -> None:
    with pytest.raises(BadRequestError) as refusal:
        client.audio.transcriptions.create(model="fake", file=speech, **{param: value})
    assert says in refusal.value.message
    assert (refusal.value.code, refusal.value.param) == ("invalid_request", param)


def test_a_prompt_and_hotwords_reach_the_decoder() -> None:
    """The fake model says what it is prompted with nowhere, so what it was given is looked at."""
    with remembered() as (running, wishes):
        answer = running.client.post(
            "/v1/audio/transcriptions",
            files={"file": voice(2)},
            data={"model": "fake", "prompt": "ba be", "hotwords": "bo", "temperature": "0.2,0.6"},
        )
    assert answer.status_code == 200
    (wish,) = wishes
    assert wish.prompt == FakeModel().encode_text(" bo") + FakeModel().encode_text(" ba be")
    assert wish.temperature == 0.2


def test_an_empty_prompt_and_no_stream_are_nothing(
    client: OpenAI, speech: tuple[str, bytes]
) -> None:
    assert client.audio.transcriptions.create(
        model="fake", file=speech, prompt="", stream=False
    ).text


def test_the_model_has_to_be_named(shared: Running) -> None:
    answer = shared.client.post("/v1/audio/transcriptions", files={"file": voice(0.1)})
    assert "fake@fast" in refused(answer, 400, "invalid_request", "model")


def test_a_raw_body_is_winnows_own_way(shared: Running) -> None:
    answer = shared.client.post(
        "/v1/audio/transcriptions", content=voice(0.1), headers={"content-type": "audio/wav"}
    )
    assert "multipart" in refused(answer, 400, "invalid_request", "content-type")


def test_models(client: OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed == ["fake", *(f"fake@{name}" for name in BUILT_IN), *ALIASES]
    for model_id in [*listed, "whisper-1@fast"]:
        one = client.models.retrieve(model_id)
        assert (one.id, one.object, one.owned_by) == (model_id, "model", "winnow")
    with pytest.raises(NotFoundError) as refusal:
        client.models.retrieve("gpt-4")
    assert refusal.value.code == "model_not_found"


def test_a_models_origin_and_licence_are_told(server: StartServer) -> None:
    class Known(FakeModel):
        @property
        def info(self) -> ModelInfo:
            info = super().info
            return replace(info, owner="openai", license="MIT", origin="https://somewhere")

    one = server(Known).client.get("/v1/models/fake").json()
    assert one["owned_by"] == "openai"
    assert (one["license"], one["origin"]) == ("MIT", "https://somewhere")
    other = server(FakeModel).client.get("/v1/models/fake").json()
    assert "license" not in other
    assert "origin" not in other


def test_a_model_whose_name_has_a_slash(server: StartServer) -> None:
    one = server(model="owner/whisper-mine")
    with OpenAI(base_url=f"{one.url}/v1", api_key="none", max_retries=0) as client:
        model_id = "owner/whisper-mine@fast"
        assert client.models.retrieve(model_id).id == model_id
        assert client.audio.transcriptions.create(model=model_id, file=("a.wav", voice(1))).text


def test_the_client_reads_why_it_was_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.audio.transcriptions.create(model="fake", file=("a.wav", b"not audio at all"))
    assert refusal.value.code == "invalid_audio"
    assert refusal.value.request_id
