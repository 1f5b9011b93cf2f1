"""Real Whisper through the whole service, over HTTP: what it says of people who speak."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from loadtest.audio import SAID as MIX_SAID
from loadtest.audio import SAMPLE as MIX
from service.families.whisper import Whisper
from service.text.wer import word_errors, words_of
from service.types import SAMPLE_RATE, Samples
from tests.api.harness import PATIENCE_S, Running, running
from tests.speech import (
    GERMAN,
    GERMAN_SAID,
    JAPANESE,
    JAPANESE_SAID,
    NAME_SAMPLE,
    SAID,
    SAMPLE,
    clips,
    needs_corpus,
    normalised,
    samples_of,
    seconds,
)

pytestmark = pytest.mark.model

V1 = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def server(base: Whisper) -> Iterator[Running]:
    with running(lambda: base) as one:
        one.client.timeout = 10 * PATIENCE_S  # retries of base on a machine that others use
        yield one


@pytest.fixture(scope="module")
def english(tiny_en: Whisper) -> Iterator[Running]:
    with running(lambda: tiny_en) as one:
        yield one


@pytest.fixture(scope="module")
def answer(server: Running) -> dict[str, Any]:
    """The sample, as `/transcribe` answers with words."""
    asked = {"timestamp_granularities[]": "word"}
    body: dict[str, Any] = server.transcribe(SAMPLE.read_bytes(), **asked).json()
    return body


def text(server: Running, audio: bytes, **parameters: str) -> str:
    response = server.transcribe(audio, **parameters)
    assert response.status_code == 200, response.text
    return str(response.json()["text"])


def wav(samples: Samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV")
    return file.getvalue()


# The sample


def test_the_sample_is_read_without_an_error(answer: dict[str, Any]) -> None:
    assert normalised(answer["text"]) == normalised(SAID)
    assert (answer["model"], answer["language"]) == ("whisper-base", "en")
    assert answer["fallbacks"] == []
    assert answer["frames"] == {"total": 1500, "kept": 1500}


def test_segments_and_words_lie_in_the_audio_in_order(answer: dict[str, Any]) -> None:
    segments = answer["segments"]
    words = [word for segment in segments for word in segment["words"]]
    assert "".join(segment["text"] for segment in segments).strip() == answer["text"]
    assert "".join(word["word"] for word in words).split() == answer["text"].split()
    assert len(words) == len(SAID.split())
    for times in (segments, words):
        assert times[0]["start"] >= 0
        assert times[-1]["end"] <= answer["duration"]
        assert all(one["start"] < one["end"] for one in times)
        assert all(before["end"] <= after["start"] for before, after in pairwise(times))
    # It is read through without a stop: the words fill it.
    assert words[0]["start"] < 0.5
    assert words[-1]["end"] > answer["duration"] - 0.8


def test_subtitles_of_the_sample(server: Running, answer: dict[str, Any]) -> None:
    for form, mark in (("srt", ","), ("vtt", ".")):
        said = server.client.post(
            V1,
            files={"file": SAMPLE.read_bytes()},
            data={"model": "whisper-1", "response_format": form},
        ).text
        time = rf"(\d\d:)?00:0\d\{mark}\d\d\d"
        cues = re.findall(rf"^{time} --> {time}$", said, re.MULTILINE)
        lines = [line for line in said.splitlines() if re.match(r"[A-Za-z]", line)]
        assert len(cues) >= 1
        assert " ".join(line for line in lines if line != "WEBVTT") == answer["text"]


def test_verbose_json_of_the_sample(server: Running, answer: dict[str, Any]) -> None:
    body = server.client.post(
        V1,
        files={"file": SAMPLE.read_bytes()},
        data={"model": "whisper-1", "response_format": "verbose_json"},
    ).json()
    assert body["text"] == answer["text"]
    assert (body["task"], body["language"]) == ("transcribe", "english")
    assert body["duration"] == pytest.approx(7.55, abs=0.01)
    for segment in body["segments"]:
        assert segment["tokens"]
        assert -0.6 < segment["avg_logprob"] < 0
        assert segment["no_speech_prob"] < 0.2
        assert 0.5 < segment["compression_ratio"] < 2


# Languages


@pytest.mark.parametrize(
    ("path", "language"), [(SAMPLE, "en"), (GERMAN, "de"), (JAPANESE, "ja")], ids=["en", "de", "ja"]
)
def test_the_language_of_the_samples_is_heard(server: Running, path: Path, language: str) -> None:
    body = server.client.post("/detect-language", content=path.read_bytes()).json()
    assert body["language"] == language
    assert body["probability"] > 0.8


@needs_corpus
def test_the_language_of_every_clip_is_heard(server: Running) -> None:
    heard = {
        clip.path.name: server.client.post(
            "/detect-language", content=clip.path.read_bytes()
        ).json()["language"]
        for clip in clips("multilingual")
    }
    assert heard == {clip.path.name: clip.language for clip in clips("multilingual")}
    assert len(heard) == 13


def test_other_languages_are_written_as_they_are_spoken(server: Running) -> None:
    german = server.transcribe(GERMAN.read_bytes()).json()
    assert german["language"] == "de"
    assert normalised(german["text"], "de") == normalised(GERMAN_SAID, "de")
    japanese = server.transcribe(JAPANESE.read_bytes()).json()
    assert japanese["language"] == "ja"
    # One word of two characters is misheard.
    wrong = [a for a, b in zip(japanese["text"], JAPANESE_SAID, strict=True) if a != b]
    assert len(wrong) <= 2


def test_only_the_languages_asked_for_are_heard(server: Running) -> None:
    said = server.transcribe(GERMAN.read_bytes(), **{"languages": "ja,de-AT"}).json()
    assert normalised(said["text"], "de") == normalised(GERMAN_SAID, "de")
    assert server.transcribe(GERMAN.read_bytes(), languages="en,ja").json()["language"] != "de"


@pytest.mark.parametrize("path", [SAMPLE, GERMAN, JAPANESE], ids=["en", "de", "ja"])
def test_the_bytes_of_the_tokens_are_the_text(server: Running, path: Path) -> None:
    """Japanese tokens are parts of characters."""
    body = server.client.post(
        V1,
        files={"file": path.read_bytes()},
        data={"model": "whisper-1", "include[]": "logprobs"},
    ).json()
    raw = b"".join(bytes(one["bytes"]) for one in body["logprobs"])
    assert raw.decode().strip() == body["text"]
    assert all(one["logprob"] <= 0 for one in body["logprobs"])
    split = [one for one in body["logprobs"] if "\ufffd" in one["token"]]
    assert bool(split) == (path == JAPANESE)


def test_german_is_translated(server: Running) -> None:
    said = text(server, GERMAN.read_bytes(), task="translate").lower()
    assert {"false", "impression"} <= set(re.findall(r"[a-z]+", said))
    v1 = server.client.post(
        "/v1/audio/translations",
        files={"file": GERMAN.read_bytes()},
        data={"model": "whisper-1"},
    )
    assert v1.json()["text"].lower() == said


# Prompts


@pytest.mark.parametrize("way", ["prompt", "hotwords"])
def test_a_name_is_spelled_as_it_is_given(server: Running, way: str) -> None:
    audio = NAME_SAMPLE.read_bytes()
    assert "Gutenberg" not in text(server, audio, language="en")
    assert "Gutenberg Bible" in text(server, audio, language="en", **{way: "Gutenberg"})


PROMPTS = {
    "a word": "hello",
    "a sentence": "The caller reads a number.",
    "names": "Names: Okafor, Lindqvist, Marrakesh.",
    "another script": "日本語の文章です。",
    "dots": "...",
    "a long list": ", ".join(f"Name{number}" for number in range(120)),
    "a loop": "The caller reads a number. " * 40,
    "letters": "a" * 300,
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_no_prompt_costs_a_word(english: Running, prompt: str) -> None:
    """The decoder alone answers the long list with nothing but "Name"."""
    said, begin_s, end_s = MIX_SAID[0]
    sentence = wav(samples_of(MIX)[: seconds(end_s + begin_s)])
    assert normalised(text(english, sentence, prompt=prompt)) == normalised(said)


# Nothing is said


@pytest.mark.parametrize("length_s", [10, 60])
def test_silence_has_no_text(server: Running, length_s: int) -> None:
    assert text(server, wav(np.zeros(seconds(length_s), np.float32))) == ""


@pytest.mark.parametrize("slope", [0.0, 1.0], ids=["white", "pink"])
@pytest.mark.parametrize("level", [0.01, 0.3])
def test_noise_has_no_text(server: Running, slope: float, level: float) -> None:
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(seconds(20)))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (slope / 2)
    noise = np.fft.irfft(spectrum)
    sound = (level * noise / np.abs(noise).max()).astype(np.float32)
    assert text(server, wav(sound)) == ""


@needs_corpus
def test_recorded_noise_has_no_text(server: Running) -> None:
    heard = {clip.path.name: text(server, clip.path.read_bytes()) for clip in clips("noise")}
    assert len(heard) == 8
    assert set(heard.values()) == {""}


# More speech


def packed(number: int) -> list[tuple[Samples, str]]:
    """Utterances of one speaker of LibriSpeech after the other, joined to windows of 15 to 28 s."""
    windows: list[tuple[Samples, str]] = []
    speaker, parts, texts = "", [np.zeros(0, np.float32)], [""]
    for clip in clips("librispeech"):
        if clip.split != "test":
            continue
        samples = samples_of(clip.path)
        length_s = sum(map(len, parts)) / SAMPLE_RATE
        if clip.speaker != speaker or length_s + len(samples) / SAMPLE_RATE > 28:
            if length_s > 15:
                windows.append((np.concatenate(parts), " ".join(texts)))
            speaker, parts, texts = clip.speaker, [], []
        parts += [samples, np.zeros(seconds(0.3), np.float32)]
        texts.append(clip.transcript)
    return windows[:: max(1, len(windows) // number)][:number]


@needs_corpus
def test_a_library_is_read_as_well_as_by_whisper_itself(english: Running) -> None:
    """6.8% was measured on 111 such windows; a decoder that is broken is far beyond."""
    windows, errors, words = packed(5), 0, 0
    for samples, transcript in windows:
        said = words_of(transcript)
        errors += word_errors(said, words_of(text(english, wav(samples))))
        words += len(said)
    assert words > 300
    assert errors / words < 0.13
