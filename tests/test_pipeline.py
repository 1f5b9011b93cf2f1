"""One request through the real engine and audio room, on the fake model."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from service.audio.reader import AudioReader
from service.config import ServerConfig
from service.engine.engine import Engine
from service.errors import ConfigError, InvalidRequest
from service.families.fake import FakeModel
from service.metrics import Metrics
from service.model.protocol import ModelInfo
from service.pipeline import Pipeline
from service.profiles import BUILT_IN
from service.types import Progress
from tests.harness import (
    HIGH_HZ,
    LOW_HZ,
    HeldDevice,
    Service,
    num_decoded,
    request,
    running,
    transcribe,
    until,
    wav,
)

# A recording becomes a transcript


def test_a_recording_of_several_windows_becomes_one_transcript(service: Service) -> None:
    source = wav((LOW_HZ, 3), (0, 2), (HIGH_HZ, 4), (0, 31), (LOW_HZ, 2))
    answer = transcribe(service, source, request(options={"language": "de"}))
    assert answer.duration == pytest.approx(42)
    assert (answer.model, answer.profile, answer.language) == ("fake", "dense", "de")
    assert len(answer.segments) == 3
    first, second, third = answer.segments
    assert (first.start, first.end) == (0, 3)
    assert (second.start, second.end) == (5, 9)
    assert third.start == pytest.approx(40, abs=1)
    assert first.text != second.text
    assert answer.text == "".join(segment.text for segment in answer.segments).strip()
    assert answer.total_frames == answer.kept_frames == 3000
    assert answer.fallbacks == ()


def test_each_segment_has_its_own_tokens(service: Service) -> None:
    answer = transcribe(service, wav((LOW_HZ, 2), (0, 2), (HIGH_HZ, 3)), request())
    model = service.engine.model
    texts = [model.split_text(segment.tokens)[0].text for segment in answer.segments]
    assert texts == [segment.text for segment in answer.segments]


def test_a_sparse_profile_keeps_fewer_frames(service: Service) -> None:
    answer = transcribe(service, wav((LOW_HZ, 2)), request("fast"))
    assert (answer.kept_frames, answer.total_frames) == (num_decoded("fast"), 1500)
    assert answer.profile == "fast"


def test_a_request_is_measured() -> None:
    with running() as service:
        answer = transcribe(service, wav((LOW_HZ, 2)), request("balanced"))
        for stage in ("decode_audio", "queue", "mel", "encode", "decode", "total"):
            labels = {"stage": stage, "profile": "balanced"}
            assert service.sample("winnow_stage_seconds_count", **labels) == 1
            seconds = service.sample("winnow_stage_seconds_sum", **labels)
            assert seconds == getattr(answer.timings, stage)
        assert answer.timings.total >= answer.timings.decode_audio > 0
        assert answer.timings.encode > 0
        assert service.sample("winnow_audio_seconds_total", profile="balanced") == 2
        assert service.sample("winnow_real_time_factor_count", profile="balanced") == 1


@pytest.mark.parametrize(("asked", "answered"), [(None, "en"), ("fr", "fr")])
def test_silence_is_an_empty_transcript(service: Service, asked: str | None, answered: str) -> None:
    answer = transcribe(service, wav((0, 3)), request(vad=True, options={"language": asked}))
    assert (answer.text, answer.segments, answer.language) == ("", (), answered)
    assert (answer.total_frames, answer.kept_frames) == (0, 0)
    assert answer.duration == 3


def test_one_part_says_that_the_windows_were_accepted(service: Service) -> None:
    async def scenario() -> list[Progress]:
        source = wav((LOW_HZ, 40))
        parts = []
        async for part in service.pipeline.stream(source, request()):
            source.close()  # it is let go before the first part
            parts.append(part)
        return parts

    first, *parts, last = asyncio.run(scenario())
    assert first == Progress()
    assert last.transcript is not None
    assert "".join(part.text for part in parts) == last.transcript.text != ""
    assert tuple(s for part in parts for s in part.segments) == last.transcript.segments


def test_a_stream_that_is_closed_withdraws_its_work() -> None:
    held = HeldDevice()

    async def scenario(service: Service) -> None:
        stream = service.pipeline.stream(wav((LOW_HZ, 100)), request())
        assert await anext(stream) == Progress()
        await until(held.reached.is_set)
        assert service.sample("winnow_queue_windows") > 0
        await stream.aclose()
        assert service.sample("winnow_queue_windows") == 0
        held.release.set()
        assert (await service.pipeline.transcribe(wav((LOW_HZ, 1)), request())).text

    with running(FakeModel(fail_encode_when=held), max_batch_windows=1) as service:
        asyncio.run(scenario(service))


def test_a_reader_that_is_slow_is_not_interrupted(service: Service) -> None:
    """The deadline is the work's: it must not cancel what the reader does between two parts."""

    async def scenario() -> Progress:
        part = Progress()
        async for part in service.pipeline.stream(wav((LOW_HZ, 2)), request(timeout_s=2)):
            if part.text:
                await asyncio.sleep(2.5)
        return part

    assert asyncio.run(scenario()).transcript is not None


# The guard: test_fallback has the rest


def test_a_repetitive_window_is_decoded_again_until_nothing_is_left_to_try() -> None:
    with running() as service:
        source = wav((LOW_HZ, 29))  # one word 29 times
        answer = transcribe(service, source, request("fast"))
        assert {(f.window, f.reason) for f in answer.fallbacks} == {(0, "repetition")}
        assert [(f.profile, f.retry, f.temperature) for f in answer.fallbacks] == [
            ("fast", "dense", 0.0),
            *(("dense", "dense", temperature) for temperature in (0.2, 0.4, 0.6, 0.8, 1.0)),
        ]
        assert answer.kept_frames == answer.total_frames == 1500
        assert answer.segments[0].temperature == 0
        labels = {"profile": "fast", "reason": "repetition"}
        assert service.sample("winnow_fallbacks_total", **labels) == 6
        assert service.sample("winnow_windows_total", profile="fast") == 1
        assert service.sample("winnow_guarded_windows_total", profile="fast") == 1


# Names


def test_profiles_resolve_by_name(service: Service) -> None:
    assert service.pipeline.resolve_profile(None).name == "dense"
    assert service.pipeline.resolve_profile("fast") == BUILT_IN["fast"]
    with pytest.raises(InvalidRequest, match="dense, balanced, fast") as refused:
        service.pipeline.resolve_profile("warp")
    assert refused.value.param == "profile"


@pytest.mark.parametrize(
    ("given", "code"), [(None, None), ("de", "de"), ("DE", "de"), (" German ", "de")]
)
def test_languages_resolve_by_code_and_name(
    service: Service, given: str | None, code: str | None
) -> None:
    assert service.pipeline.resolve_language(given) == code


@pytest.mark.parametrize(
    ("language", "languages", "means"),
    [
        ("", [], (None, ())),
        ("auto", [], (None, ())),
        ("en-US", [], ("en", ())),
        (None, ["de-DE", "en_GB", "deu"], (None, ("de", "en"))),
        (None, ["fra"], ("fr", ())),
        (None, ["fr", "auto"], (None, ())),
        (None, ["", " "], (None, ())),
        ("de", ["en", "fr"], ("de", ())),
    ],
)
def test_one_language_or_several_to_choose_from(
    service: Service,
    language: str | None,
    languages: list[str],
    means: tuple[str | None, tuple[str, ...]],
) -> None:
    assert service.pipeline.resolve_spoken(language, languages) == means


def test_only_the_languages_asked_for_are_heard(service: Service) -> None:
    heard = transcribe(service, wav((LOW_HZ, 1)), request(options={"languages": ("de", "fr")}))
    assert heard.language == "fr"  # the fake model hears English first, then French


class DutchModel(FakeModel):
    """The fake model, as a checkpoint that knows Dutch presents itself."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, languages={"en": "english", "nl": "dutch"})


def test_a_language_goes_by_its_other_names_too() -> None:
    with running(DutchModel()) as service:
        assert service.pipeline.resolve_language("Flemish") == "nl"
        with pytest.raises(InvalidRequest, match="unknown language 'Castilian'"):
            service.pipeline.resolve_language("Castilian")


def test_an_unknown_language_is_refused_with_the_valid_ones(service: Service) -> None:
    with pytest.raises(InvalidRequest, match="en, de, fr") as refused:
        service.pipeline.resolve_language("klingon")
    assert refused.value.param == "language"


class EnglishModel(FakeModel):
    """The fake model, as an English-only checkpoint presents itself."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, languages={"en": "english"}, multilingual=False)


def test_an_english_only_model_hears_english_and_does_not_translate() -> None:
    with running(EnglishModel()) as service:
        assert service.pipeline.resolve_language(None) == "en"
        assert service.pipeline.resolve_language("English") == "en"
        with pytest.raises(InvalidRequest, match="use one of en") as refused:
            service.pipeline.resolve_language("de")
        assert refused.value.param == "language"
        with pytest.raises(InvalidRequest) as refused:
            transcribe(service, wav((LOW_HZ, 1)), request(options={"task": "translate"}))
        assert refused.value.param == "task"


def test_an_unknown_task_is_refused(service: Service) -> None:
    with pytest.raises(InvalidRequest, match="transcribe, translate") as refused:
        transcribe(service, wav((LOW_HZ, 1)), request(options={"task": "sing"}))
    assert refused.value.param == "task"


def test_a_default_profile_that_is_not_there_is_refused_at_once() -> None:
    config, metrics = ServerConfig(default_profile="warp"), Metrics()
    engine = Engine(FakeModel, config, metrics.of("fake"))
    reader = AudioReader(1, 60, metrics)
    with pytest.raises(ConfigError, match="dense, balanced, fast"):
        Pipeline(engine, config, metrics.of("fake"), BUILT_IN, reader)
    reader.close()
