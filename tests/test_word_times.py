"""Word times of real speech, from file to answer, against openai-whisper's own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import whisper

from service.audio.mel import log_mel
from service.families.whisper import Whisper
from service.profiles import BUILT_IN, Profile
from service.types import SAMPLE_RATE, DecodeOptions, Samples, TranscribeRequest, Transcript, Word
from tests.checkpoints import openai_tokenizer, to_openai_whisper
from tests.harness import Service, running, transcribe
from tests.speech import NAME_SAMPLE, SAID, SAMPLE, normalised, samples_of, seconds

pytestmark = pytest.mark.model

HALF = Profile("half", layer=2, sparsity=0.5, selection="stride")
WORDS = DecodeOptions("en", word_times=True)


@pytest.fixture(scope="module")
def service(tiny_en: Whisper) -> Iterator[Service]:
    with running(tiny_en) as started:
        yield started


def read(service: Service, samples: Samples, profile: Profile, vad: bool = True) -> Transcript:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV")
    file.seek(0)
    return transcribe(service, file, TranscribeRequest(profile, WORDS, vad=vad))


def words_of(transcript: Transcript) -> list[Word]:
    return [word for segment in transcript.segments for word in segment.words]


@pytest.mark.parametrize("path", [SAMPLE, NAME_SAMPLE], ids=["sample", "name"])
def test_dense_times_are_those_of_openai_whisper(
    service: Service, tiny_en_folder: Path, path: Path
) -> None:
    samples = samples_of(path)
    ours = words_of(read(service, samples, BUILT_IN["dense"], vad=False))
    theirs = by_openai_whisper(tiny_en_folder, samples, "".join(word.text for word in ours))
    assert [word.text for word in ours] == [word["word"] for word in theirs]
    for name in ("start", "end"):
        apart = [abs(getattr(a, name) - b[name]) for a, b in zip(ours, theirs, strict=True)]
        assert np.mean(apart) <= 0.02
        assert max(apart) <= 0.1


def by_openai_whisper(folder: Path, samples: Samples, said: str) -> list[dict[str, Any]]:
    model, tokenizer = to_openai_whisper(folder), openai_tokenizer(multilingual=False)
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS["tiny.en"])
    end_s = len(samples) / SAMPLE_RATE
    tokens = tokenizer.encode(said)
    segments: list[dict[str, Any]] = [{"seek": 0, "start": 0.0, "end": end_s, "tokens": tokens}]
    whisper.timing.add_word_timestamps(
        segments=segments,
        model=model,
        tokenizer=tokenizer,
        mel=log_mel([samples], 80)[0],
        num_frames=round(end_s * 100),
        last_speech_timestamp=0.0,
    )
    words: list[dict[str, Any]] = segments[0]["words"]
    return words


def test_half_the_frames_leave_words_where_they_are(service: Service) -> None:
    samples = samples_of(SAMPLE)
    dense = words_of(read(service, samples, BUILT_IN["dense"]))
    half = words_of(read(service, samples, HALF))
    assert normalised("".join(w.text for w in half)) == normalised(SAID)
    assert len(half) == len(dense)
    for name in ("start", "end"):
        apart = [abs(getattr(a, name) - getattr(b, name)) for a, b in zip(dense, half, strict=True)]
        assert np.mean(apart) <= 0.06


def test_times_hold_over_several_windows(service: Service) -> None:
    """The sample again and again, at known places: each word is as far into it every time."""
    sample, places, parts = samples_of(SAMPLE), [], [np.zeros(seconds(1), np.float32)]
    for number in range(8):
        places.append(sum(map(len, parts)) / SAMPLE_RATE)
        parts += [sample, np.zeros(seconds(1.7 + 0.9 * number), np.float32)]
    transcript = read(service, np.concatenate(parts), BUILT_IN["dense"])
    words = words_of(transcript)
    assert len({segment.id for segment in transcript.segments}) >= len(places)
    for segment in transcript.segments:
        assert "".join(word.text for word in segment.words) == segment.text
        assert all(segment.start <= w.start <= w.end <= segment.end for w in segment.words)
    assert all(before.end <= after.start for before, after in pairwise(words))
    assert words[-1].end <= transcript.duration
    number_of_words = len(SAID.split())
    assert len(words) == len(places) * number_of_words
    starts = np.array([word.start for word in words]).reshape(len(places), number_of_words)
    into = starts - np.array(places)[:, None]
    assert np.abs(into - np.median(into, axis=0)).mean() < 0.08
    # No drift: the second half is no later than the first.
    assert abs(np.median(into[4:] - into[:4])) < 0.05


def test_words_have_no_time_outside_the_recording(service: Service) -> None:
    """A recording that ends inside a word."""
    cut = samples_of(SAMPLE)[: seconds(3.3)]
    words = words_of(read(service, cut, replace(HALF, sparsity=0.4)))
    assert words
    assert all(0 <= word.start <= word.end <= 3.3 for word in words)
