"""The tables of OpenAI's interface in docs/api.md: each row has a check, and no row is missing.

What their client knows is read from `openai` itself: a parameter, a field or an event that it
gains fails here until the tables say what becomes of it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import httpx
import pytest
from openai import NotFoundError, OpenAI
from openai.types.audio import (
    Transcription,
    TranscriptionStreamEvent,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
    transcription_create_params,
    translation_create_params,
)

from service.config import ALIASES
from service.families.fake import LOGPROB, FakeModel
from service.model.protocol import ModelInfo
from service.types import DecodeOptions

from .harness import Running, refused, remembered, running, silence, voice

API = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
TABLES = ("parameters", "fields", "events", "translations", "models")
Row = tuple[str, str]

# Deprecated by OpenAI, and held here all the same.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")


def documented() -> list[Row]:
    """Each name in the first column of each table."""
    section = API.split("## OpenAI's interface\n")[1].split("\n## ")[0]
    tables = re.findall(r"\n\|[^\n]*\|\n\|---[^\n]*\n((?:\|[^\n]*\n)+)", section)
    assert len(tables) == len(TABLES)
    return [
        (name, one)
        for name, table in zip(TABLES, tables, strict=True)
        for row in table.splitlines()
        for one in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]


class PromptlessModel(FakeModel):
    """The fake model, as a checkpoint without a tokenizer presents itself."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, max_prompt_tokens=0)


@dataclass(frozen=True)
class Here:
    """A server with the fake model, OpenAI's client of it, and what its decoder was asked."""

    server: Running
    client: OpenAI
    wishes: list[DecodeOptions]

    def post(self, task: str = "transcriptions", **fields: Any) -> httpx.Response:
        audio = fields.pop("audio", None) or voice(3)
        return self.server.client.post(
            f"/v1/audio/{task}", files={"file": audio}, data={"model": "whisper-1", **fields}
        )

    def json(self, **fields: Any) -> dict[str, Any]:
        answer = self.post(**fields)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def wish(self, **fields: Any) -> DecodeOptions:
        """What the decoder is asked for."""
        self.wishes.clear()
        assert self.post(**fields).status_code == 200
        return self.wishes[0]

    def ignored(self, **fields: Any) -> list[str]:
        """The parameters that the answer says were ignored."""
        answer = self.post(**fields)
        assert answer.status_code == 200, answer.text
        header = answer.headers.get("x-winnow-warnings")
        is_json = answer.headers["content-type"] == "application/json"
        warnings = answer.json().get("warnings", []) if is_json else json.loads(header or "[]")
        assert {warning["code"] for warning in warnings} <= {"ignored_parameter"}
        return [warning["param"] for warning in warnings]

    def events(self, **fields: Any) -> list[dict[str, Any]]:
        answer = self.post(stream="true", **fields)
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.text.splitlines()
        return [json.loads(line[len("data: ") :]) for line in lines if line.startswith("data: ")]


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    with (
        remembered() as (server, wishes),
        OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield Here(server, client, wishes)


Check = Callable[[Here], None]
CHECKS: dict[Row, Check] = {}


def row(table: str, name: str) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        CHECKS[table, name] = check
        return check

    return add


def test_every_row_has_a_check_and_every_check_a_row() -> None:
    assert sorted(documented()) == sorted(CHECKS)


def test_every_parameter_field_and_event_of_their_client_has_a_row() -> None:
    rows = set(documented())
    streaming = transcription_create_params.TranscriptionCreateParamsStreaming
    theirs = {("parameters", name) for name in get_type_hints(streaming)}
    translations = translation_create_params.TranslationCreateParams
    theirs |= {("translations", name) for name in get_type_hints(translations)}
    for answer in (Transcription, TranscriptionVerbose, TranscriptionTextDoneEvent):
        theirs |= {("fields", name) for name in answer.model_fields} - {("fields", "type")}
    events = get_args(get_args(TranscriptionStreamEvent)[0])
    theirs |= {("events", get_args(e.model_fields["type"].annotation)[0]) for e in events}
    assert not theirs - rows
    # segment_id alone is never sent; its row says so.
    assert set(TranscriptionTextDeltaEvent.model_fields) == {
        *("delta", "type", "logprobs", "segment_id")
    }


# Parameters of transcriptions


@row("parameters", "file")
def _file(here: Here) -> None:
    assert here.json(audio=("a.mp3", io.BytesIO(voice(1)), "video/mp4"))["text"]
    assert here.json(audio=("", voice(1)))["text"]


@row("parameters", "model")
def _model(here: Here) -> None:
    for name in ("fake", "fake@fast", *ALIASES, "gpt-4o-transcribe@balanced"):
        assert here.json(model=name)["text"]
    refused(here.post(model="gpt-4o-transcribe-diarize"), 404, "model_not_found", "model")
    refused(here.post(model=""), 400, "invalid_request", "model")


@row("parameters", "language")
def _language(here: Here) -> None:
    for said in ("de", "deu", "ger", "de-DE", "de_AT", "German", "GERMAN", "german (Austria)"):
        assert here.wish(language=said).language == "de"
    for said in ("", "auto", "Auto", " "):
        assert here.wish(language=said).language is None
    refused(here.post(language="xx"), 400, "invalid_request", "language")


@row("parameters", "languages")
def _languages(here: Here) -> None:
    for fields in (
        {"languages[]": ["de", "fr"]},
        {"languages": ["de-DE", "fra"]},
        {"languages[0]": "de", "languages[1]": "fr"},
        {"languages": "de, fr"},
        {"languages": '["de", "fr", ""]'},
    ):
        wish = here.wish(**fields)
        assert (wish.language, wish.languages) == (None, ("de", "fr"))
        assert here.json(**fields)["languages"] == [{"code": "fr"}]  # the fake's second guess
    assert here.wish(languages=["en-US", "eng"]).language == "en"
    wish = here.wish(languages=["de", "fr"], language="en")
    assert (wish.language, wish.languages) == ("en", ())
    refused(here.post(languages=["de", "xx"]), 400, "invalid_request", "languages")


@row("parameters", "keywords")
def _keywords(here: Here) -> None:
    spoken = FakeModel().encode_text
    for fields in (
        {"keywords[]": ["ba", "be"]},
        {"keywords": "ba,be"},
        {"keywords": '["ba","be"]'},
    ):
        assert here.wish(prompt="bi", **fields).prompt == spoken(" ba, be") + spoken(" bi")
    many = here.wish(**{"keywords[]": ["ba"] * 100})
    assert many.prompt


@row("parameters", "prompt")
def _prompt(here: Here) -> None:
    assert here.wish(prompt="ba be").prompt == FakeModel().encode_text("ba be")
    with running(PromptlessModel) as server:
        answer = server.client.post(
            "/v1/audio/transcriptions",
            files={"file": voice(1)},
            data={"model": "fake", "prompt": "ba", "keywords[]": "be"},
        )
    assert [one["param"] for one in answer.json()["warnings"]] == ["prompt", "keywords"]


@row("parameters", "temperature")
def _temperature(here: Here) -> None:
    assert here.wish(temperature="0.4").temperature == 0.4
    assert here.wish(temperature="0.2,0.4").temperature == 0.2
    refused(here.post(temperature="1.5"), 400, "invalid_request", "temperature")


@row("parameters", "response_format")
def _response_format(here: Here) -> None:
    for name in ("json", "text", "srt", "verbose_json", "vtt", ""):
        assert here.post(response_format=name, model="gpt-4o-transcribe").status_code == 200
    refusal = here.post(response_format="diarized_json")
    refused(refusal, 400, "invalid_request", "response_format")


@row("parameters", "timestamp_granularities")
def _granularities(here: Here) -> None:
    both: tuple[dict[str, Any], ...] = (
        {"timestamp_granularities[]": ["word", "segment"]},
        {"timestamp_granularities": ["word", "segment"]},
        {"timestamp_granularities[0]": "word", "timestamp_granularities[1]": "segment"},
        {"timestamp_granularities": "word,segment"},
        {"timestamp_granularities[]": '["word", "segment"]'},
        {"timestamp_granularities": "Segment, Word"},
        {"timestamp_granularities": "['word', 'segment']"},
        {"timestamp_granularities[]": "[word, segment]"},
    )
    for fields in both:
        body = here.json(response_format="verbose_json", **fields)
        assert {"words", "segments"} <= set(body)
        assert here.wish(response_format="srt", **fields).word_times
        for response_format in ("json", "text"):
            asked = {**fields, "response_format": response_format}
            assert here.ignored(**asked) == ["timestamp_granularities"]
            assert not here.wish(**asked).word_times
    body = here.json(response_format="verbose_json", timestamp_granularities="word")
    assert "segments" not in body


@row("parameters", "include")
def _include(here: Here) -> None:
    for name in ("include[]", "include", "include[0]"):
        assert here.json(**{name: "logprobs"})["logprobs"]
    assert here.json(include='["logprobs"]', response_format="verbose_json")["logprobs"]
    assert "logprobs" not in here.json(include="")
    assert here.ignored(include="logprobs", response_format="srt") == ["include"]
    refused(here.post(include="words"), 400, "invalid_request", "include")


@row("parameters", "chunking_strategy")
def _chunking_strategy(here: Here) -> None:
    for plain in ("auto", "server_vad", '"auto"', '{"type": "server_vad"}', "", "null"):
        assert here.ignored(chunking_strategy=plain) == []
    assert here.ignored(**{"chunking_strategy[type]": "server_vad"}) == []
    numbers = {"threshold": 0.4, "prefix_padding_ms": 300, "silence_duration_ms": 200}
    spelled: tuple[dict[str, Any], ...] = (
        {"chunking_strategy": json.dumps({"type": "server_vad", **numbers})},
        {f"chunking_strategy[{key}]": str(n) for key, n in numbers.items()},
        {
            "chunking_strategy.type": "server_vad",
            **{f"chunking_strategy.{key}": str(n) for key, n in numbers.items()},
        },
    )
    for fields in spelled:
        assert here.ignored(**fields) == ["chunking_strategy"]
    for wrong in ("vad", "{", "[]", '{"type": "server_vad", "threshold": 2}', '{"x": 1}'):
        assert here.post(chunking_strategy=wrong).status_code == 400


@row("parameters", "stream")
def _stream(here: Here) -> None:
    for response_format in ("json", "text"):
        assert here.events(response_format=response_format)
    for response_format in ("srt", "vtt", "verbose_json"):
        asked = {"response_format": response_format, "stream": "true"}
        assert here.ignored(**asked) == ["stream"]
        plain = here.post(response_format=response_format)
        assert here.post(**asked).headers["content-type"] == plain.headers["content-type"]
        assert here.ignored(response_format=response_format, stream="false") == []
    assert here.json(stream="false")["text"]


@row("parameters", "known_speaker_names")
def _speaker_names(here: Here) -> None:
    assert here.ignored(**{"known_speaker_names[]": ["agent", "customer"]}) == [
        "known_speaker_names"
    ]


@row("parameters", "known_speaker_references")
def _speaker_references(here: Here) -> None:
    reference = "data:audio/wav;base64," + "A" * 200_000
    assert here.ignored(**{"known_speaker_references[]": [reference] * 2}) == [
        "known_speaker_references"
    ]


# What an answer holds


@row("fields", "text")
def _text(here: Here) -> None:
    said = here.json()["text"]
    assert said == here.json(response_format="verbose_json")["text"] == here.events()[-1]["text"]


@row("fields", "languages")
def _spoken(here: Here) -> None:
    answer = here.client.audio.transcriptions.create(model="gpt-transcribe", file=voice(2))
    assert [language.code for language in answer.languages or ()] == ["en"]
    assert here.events(language="de")[-1]["languages"] == [{"code": "de"}]
    assert here.json(audio=silence(2))["languages"] == []


@row("fields", "logprobs")
def _logprobs(here: Here) -> None:
    answer = here.client.audio.transcriptions.create(
        model="gpt-4o-transcribe", file=voice(3), include=["logprobs"]
    )
    assert answer.logprobs
    for one in answer.logprobs:
        assert one.logprob == LOGPROB
        assert one.token is not None
        assert bytes(int(byte) for byte in one.bytes or ()) == one.token.encode()
    assert "".join(one.token or "" for one in answer.logprobs).strip() == answer.text


@row("fields", "usage")
def _usage(here: Here) -> None:
    usage = {"type": "duration", "seconds": 3}
    assert here.json()["usage"] == here.events()[-1]["usage"] == usage
    assert here.json(response_format="verbose_json")["usage"] == usage


@row("fields", "task")
@row("fields", "language")
@row("fields", "duration")
def _verbose(here: Here) -> None:
    body = here.json(response_format="verbose_json", language="fr")
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "french", 3.0)


@row("fields", "segments")
@row("fields", "words")
def _lists(here: Here) -> None:
    answer = here.client.audio.transcriptions.create(
        model="whisper-1",
        file=voice(3),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    for timed in (*(answer.segments or ()), *(answer.words or ())):
        assert 0 <= timed.start < timed.end <= 3.0
    assert answer.segments
    assert answer.words


@row("fields", "warnings")
def _warnings(here: Here) -> None:
    assert "warnings" not in here.json()
    named = {"known_speaker_names": "a"}
    (warning,) = here.json(**named)["warnings"]
    assert set(warning) == {"code", "message", "param"}
    assert here.ignored(response_format="text", **named) == ["known_speaker_names"]
    assert here.events(**named)[-1]["warnings"] == [warning]


# Events


@row("events", "transcript.text.delta")
def _delta(here: Here) -> None:
    *deltas, done = here.events(**{"include[]": "logprobs", "audio": voice(40)})
    assert {event["type"] for event in deltas} == {"transcript.text.delta"}
    assert "".join(event["delta"] for event in deltas) == done["text"]
    assert [one for event in deltas for one in event["logprobs"]] == done["logprobs"]
    assert not any("segment_id" in event for event in deltas)
    assert not any("logprobs" in event for event in here.events())


@row("events", "transcript.text.segment")
def _segment(here: Here) -> None:
    assert "transcript.text.segment" not in {event["type"] for event in here.events()}
    refused(
        here.post(response_format="diarized_json", stream="true"),
        *(400, "invalid_request", "response_format"),
    )


@row("events", "transcript.text.done")
def _done(here: Here) -> None:
    stream = here.client.audio.transcriptions.create(model="whisper-1", file=voice(3), stream=True)
    *_, done = stream
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert {"type": done.type, **here.json()} == done.to_dict()


@row("events", "error")
def _error(here: Here) -> None:
    """`test_streams` has the error on the way; before the first event it is a status."""
    assert here.post(stream="true", audio=b"no audio").status_code == 400


# Translations


@row("translations", "file")
@row("translations", "model")
def _translation(here: Here) -> None:
    answer = here.client.audio.translations.create(model="whisper-1", file=voice(3))
    assert answer.text == here.json()["text"].upper()  # the fake's English
    assert set(here.post("translations").json()) == {"text", "usage"}


@row("translations", "prompt")
def _translation_prompt(here: Here) -> None:
    assert here.wish(task="translations", prompt="ba").prompt == FakeModel().encode_text("ba")


@row("translations", "response_format")
def _translation_format(here: Here) -> None:
    for name in ("json", "text", "srt", "verbose_json", "vtt"):
        assert here.post("translations", response_format=name).status_code == 200
    body = here.post("translations", response_format="verbose_json").json()
    assert (body["task"], body["language"]) == ("translate", "english")


@row("translations", "temperature")
def _translation_temperature(here: Here) -> None:
    assert here.wish(task="translations", temperature="0.4").temperature == 0.4


# Models


@row("models", "GET /v1/models")
def _models(here: Here) -> None:
    listed = [model.id for model in here.client.models.list()]
    assert listed[:2] == ["fake", "fake@dense"]
    assert listed[-len(ALIASES) :] == list(ALIASES)
    types = {"dtype": "float32", "weight_dtype": "float32"}
    for model in here.client.models.list():
        assert types.items() <= (model.model_extra or {}).items()


@row("models", "GET /v1/models/{model}")
def _one_model(here: Here) -> None:
    for model_id in [*(model.id for model in here.client.models.list()), "gpt-transcribe@fast"]:
        assert here.client.models.retrieve(model_id).id == model_id
    with pytest.raises(NotFoundError) as refusal:
        here.client.models.retrieve("gpt-5")
    assert refusal.value.code == "model_not_found"


@row("models", "DELETE /v1/models/{model}")
def _delete(here: Here) -> None:
    assert here.server.client.delete("/v1/models/fake").status_code == 405


@pytest.mark.parametrize("name", sorted(CHECKS), ids=lambda name: " ".join(name))
def test_a_row_is_true(here: Here, name: Row) -> None:
    CHECKS[name](here)
