"""Golden files: a change of an answer's shape has to be seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from openai.types.audio import TranscriptionVerbose

from service.text.formats import (
    FORMATS,
    language_answer,
    to_format,
    to_json,
    to_openai_json,
    to_openai_verbose,
    to_text,
)
from service.text.subtitles import Layout
from service.types import Fallback, Segment, SpokenLanguage, Timings, Transcript, Word

GOLDEN = Path(__file__).parent / "golden"

TRANSCRIPT = Transcript(
    text="one twö three",
    language="de",
    duration=61.23456789,
    model="fake",
    profile="fast",
    segments=(
        Segment(0, 0.0, 1.23456, " one twö", (50364, 7, 8, 50426), -0.123456789, 0.01, 1.125, 0.0),
        Segment(1, 30.0004, 61.23456789, " three", (9,), -0.5, 0.25, 0.625, 0.2),
    ),
    total_frames=4500,
    kept_frames=1800,
    timings=Timings(0.1, 0.02, 0.0030000004, 1.5, 2.25, 4.0),
    fallbacks=(Fallback(1, "repetition", "fast", "dense"),),
    languages=("de", "en"),
)
LOGPROBS = ({"token": " one", "logprob": -0.25, "bytes": [32, 111, 110, 101]},)

# With everything that a request can ask for.
RICH = replace(
    TRANSCRIPT,
    text="Channel 1: one twö\nChannel 2: three",
    segments=(
        replace(
            TRANSCRIPT.segments[0],
            channel=0,
            words=(Word(0.0, 0.5, " one", 0.75), Word(0.6, 1.23456, " twö", 0.1234567)),
        ),
        replace(TRANSCRIPT.segments[1], channel=1, words=(Word(30.0, 61.2, " three", 1.0),)),
    ),
)
SILENT = replace(
    TRANSCRIPT, text="", segments=(), total_frames=0, kept_frames=0, fallbacks=(), duration=0.0
)


WITH_WORDS = replace(
    TRANSCRIPT,
    segments=(
        replace(
            TRANSCRIPT.segments[0],
            words=(Word(0.0, 0.6, " one", 0.5), Word(0.61239, 1.23456, " twö", 0.987654321)),
        ),
    ),
)


def test_text_matches_the_golden_file() -> None:
    assert to_text(TRANSCRIPT) == (GOLDEN / "transcript.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("transcript.json", to_json(TRANSCRIPT)),
        ("openai.json", to_openai_json(TRANSCRIPT, "transcribe")),
        ("openai_translation.json", to_openai_json(TRANSCRIPT, "translate")),
        ("openai_logprobs.json", to_openai_json(TRANSCRIPT, "transcribe", LOGPROBS)),
        ("openai_verbose.json", to_openai_verbose(TRANSCRIPT, "transcribe")),
        ("words.json", to_json(WITH_WORDS)),
        ("openai_words.json", to_openai_verbose(WITH_WORDS, "transcribe", ["word"])),
        ("rich.json", to_json(RICH)),
        ("rich_verbose.json", to_openai_verbose(RICH, "translate")),
        (
            "language.json",
            language_answer(SpokenLanguage((("de", 0.75), ("en", 0.25)), 1.5, "fake", "dense")),
        ),
    ],
)
def test_json_matches_the_golden_file(name: str, answer: dict[str, Any]) -> None:
    written = json.dumps(answer, ensure_ascii=False, indent=2) + "\n"
    # As text, so that the order of the keys counts too.
    assert written == (GOLDEN / name).read_text(encoding="utf-8")


def test_silence_is_a_valid_answer() -> None:
    answer = to_json(SILENT)
    assert (answer["text"], answer["segments"], answer["real_time_factor"]) == ("", [], 0.0)
    assert answer["frames"] == {"total": 0, "kept": 0}
    unheard = language_answer(SpokenLanguage((), 1.5, "fake", "dense"))
    assert (unheard["language"], unheard["probability"]) == (None, 0.0)


@pytest.mark.parametrize(
    ("name", "empty"),
    [("text", "\n"), ("srt", ""), ("vtt", "WEBVTT\n\n"), ("tsv", "start\tend\ttext\n")],
)
def test_no_format_invents_text_for_silence(name: str, empty: str) -> None:
    assert to_format(SILENT, name, "transcribe", Layout()) == empty


def test_every_format_says_the_same() -> None:
    for name in FORMATS:
        content = to_format(TRANSCRIPT, name, "transcribe", Layout())
        text = content["text"] if isinstance(content, dict) else content
        assert "one twö" in text
        assert "three" in text


def test_openais_client_reads_the_verbose_answer() -> None:
    parsed = TranscriptionVerbose.model_validate(to_openai_verbose(TRANSCRIPT, "transcribe"))
    assert parsed.segments is not None
    assert [segment.tokens for segment in parsed.segments] == [[50364, 7, 8, 50426], [9]]
    assert parsed.usage is not None
    assert parsed.usage.seconds == 62
