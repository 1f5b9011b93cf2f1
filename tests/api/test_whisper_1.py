"""OpenAI's interface as it was for `whisper-1`, which OpenAI ends on 26 February 2027.

What programs wrote against it goes on working here: their client, unchanged, with the old model
name and nothing of what came later. `docs/moving-from-openai.md` promises it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.audio import Transcription, TranscriptionVerbose, Translation, TranslationVerbose

from .harness import Running, voice

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

SRT = re.compile(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n\S")
VTT = re.compile(r"WEBVTT\n\n00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}\n\S")
SEGMENT = {
    *("id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob"),
    *("compression_ratio", "no_speech_prob"),
}


@pytest.fixture
def client(shared: Running) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def said(shared: Running) -> str:
    text: str = shared.transcribe(voice(3)).json()["text"]
    assert text
    return text


def test_json(client: OpenAI, said: str) -> None:
    answer = client.audio.transcriptions.create(model="whisper-1", file=("a.mp3", voice(3)))
    assert isinstance(answer, Transcription)
    assert answer.text == said
    assert answer.usage is not None


def test_text(client: OpenAI, said: str) -> None:
    answer: Any = client.audio.transcriptions.create(
        model="whisper-1",
        file=("a.wav", voice(3)),
        response_format="text",
        language="en",
        prompt="ba, be.",
        temperature=0,
    )
    assert answer == f"{said}\n"


@pytest.mark.parametrize(("response_format", "looks"), [("srt", SRT), ("vtt", VTT)])
def test_subtitles(client: OpenAI, response_format: Any, looks: re.Pattern[str]) -> None:
    answer: Any = client.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", voice(3)), response_format=response_format
    )
    assert looks.match(answer)


def test_verbose_json(client: OpenAI, said: str) -> None:
    answer = client.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", voice(3)), response_format="verbose_json"
    )
    assert isinstance(answer, TranscriptionVerbose)
    assert (answer.text, answer.language, float(answer.duration)) == (said, "english", 3.0)
    assert answer.words is None
    assert answer.segments
    assert all(set(segment.to_dict()) == SEGMENT for segment in answer.segments)


@pytest.mark.parametrize("granularities", [["word"], ["segment"], ["word", "segment"]])
def test_times_of_words(client: OpenAI, said: str, granularities: list[Any]) -> None:
    answer = client.audio.transcriptions.create(
        model="whisper-1",
        file=("a.wav", voice(3)),
        response_format="verbose_json",
        timestamp_granularities=granularities,
    )
    assert (answer.segments is not None) == ("segment" in granularities)
    if "word" in granularities:
        assert answer.words
        assert " ".join(word.word for word in answer.words) == said
        assert all(0 <= word.start < word.end <= 3.0 for word in answer.words)
        assert set(answer.words[0].to_dict()) == {"word", "start", "end"}


@pytest.mark.parametrize("response_format", ["json", "text", "srt", "verbose_json", "vtt"])
def test_translations(client: OpenAI, said: str, response_format: Any) -> None:
    answer: Any = client.audio.translations.create(
        model="whisper-1",
        file=("a.wav", voice(3)),
        response_format=response_format,
        prompt="ba",
        temperature=0,
    )
    types = {"json": Translation, "verbose_json": TranslationVerbose}
    assert type(answer) is types.get(response_format, str)
    assert said.upper() in (answer if isinstance(answer, str) else answer.text)


def test_a_stream_that_was_ignored_is_ignored(client: OpenAI) -> None:
    with client.audio.transcriptions.with_streaming_response.create(
        model="whisper-1", file=("a.wav", voice(3)), response_format="srt", stream=True
    ) as answer:
        assert SRT.match(answer.read().decode())


def test_the_model_is_listed(client: OpenAI) -> None:
    assert client.models.retrieve("whisper-1").id == "whisper-1"
    assert "whisper-1" in [model.id for model in client.models.list()]


def test_the_asynchronous_client(shared: Running, said: str) -> None:
    async def ask() -> Any:
        async with AsyncOpenAI(base_url=f"{shared.url}/v1", api_key="none") as client:
            return await client.audio.transcriptions.create(model="whisper-1", file=voice(3))

    assert asyncio.run(ask()).text == said


# What others post to an endpoint of OpenAI's kind


@pytest.mark.parametrize("language", [{}, {"language": "en"}, {"language": ""}])
def test_open_webui(shared: Running, said: str, language: dict[str, str]) -> None:
    """Its backend: a file by a random name, the model that was typed in, perhaps a language."""
    answer = shared.client.post(
        "/v1/audio/transcriptions",
        headers={"Authorization": "Bearer sk-none"},
        files={"file": ("0b5f3c1e-7d0a-4a3e-9a57-5f0c2f3f5c11.wav", voice(3))},
        data={"model": "whisper-1", **language},
    )
    assert answer.json()["text"] == said


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe"])
def test_the_ai_sdk(shared: Running, said: str, model: str) -> None:
    """It asks for segments whatever the format, and sends a temperature."""
    is_old = model == "whisper-1"
    answer = shared.client.post(
        "/v1/audio/transcriptions",
        files={"file": ("audio.wav", voice(3), "audio/wav")},
        data={
            "model": model,
            "response_format": "verbose_json" if is_old else "json",
            "temperature": "0",
            "timestamp_granularities[]": "segment",
        },
    )
    assert answer.json()["text"] == said
    assert ("segments" in answer.json()) == is_old
