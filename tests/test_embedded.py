"""The embedded model on real sound, from file to text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from service.audio.decode import decode
from service.config import ServerConfig
from service.engine.engine import Engine
from service.lab import corpus
from service.lab.domains import DOMAINS, Places
from service.lab.evaluate import score, transcribe
from service.lab.wer import word_errors, words_of
from service.metrics import Metrics
from service.model.load import load_model
from service.model.protocol import SpeechModel
from service.pipeline import Pipeline
from service.profiles import BUILT_IN
from service.types import SAMPLE_RATE, DecodeOptions, Samples, TranscribeRequest, Transcript

pytestmark = pytest.mark.model

REPOSITORY = Path(__file__).parents[1]
SAMPLE = REPOSITORY / "docs" / "samples" / "digits.wav"
SAID = "four two seven one nine"
CORPUS = REPOSITORY.parent / "shared" / "corpus"

needs_corpus = pytest.mark.skipif(
    not CORPUS.is_dir(), reason="the speech corpus is not beside this repository"
)


@pytest.fixture(scope="module")
def model() -> SpeechModel:
    return load_model("embedded", device="cpu")


@pytest.fixture(scope="module")
def pipeline(model: SpeechModel) -> Iterator[Pipeline]:
    config, metrics = ServerConfig(), Metrics()
    engine = Engine(lambda: model, config, metrics)
    engine.start()
    engine.wait_ready(60)
    pipeline = Pipeline(engine, config, metrics, BUILT_IN)
    yield pipeline
    pipeline.close()
    engine.stop()


def ask(pipeline: Pipeline, path: Path, profile: str = "dense", vad: bool = True) -> Transcript:
    request = TranscribeRequest(BUILT_IN[profile], DecodeOptions(language="en"), vad=vad)
    with path.open("rb") as source:
        return asyncio.run(pipeline.transcribe(source, request))


def sample() -> Samples:
    with SAMPLE.open("rb") as source:
        return decode(source, 60).samples


def test_the_sample_is_read_right(pipeline: Pipeline) -> None:
    transcript = ask(pipeline, SAMPLE)
    assert transcript.text == SAID
    assert transcript.model == "winnow-nano"
    assert len(transcript.segments) == 5
    assert 0 <= transcript.segments[0].start < transcript.segments[-1].end <= transcript.duration


@pytest.mark.parametrize(("profile", "kept"), [("balanced", 750), ("fast", 600)])
def test_a_sparse_profile_reads_most_of_it_from_fewer_frames(
    pipeline: Pipeline, profile: str, kept: int
) -> None:
    transcript = ask(pipeline, SAMPLE, profile)
    assert (transcript.total_frames, transcript.kept_frames) == (1500, kept)
    assert word_errors(words_of(SAID), words_of(transcript.text)) <= 2


def test_a_window_reads_the_same_alone_and_in_company(model: SpeechModel) -> None:
    rng = np.random.default_rng(0)
    speech = sample()
    windows = [
        np.concatenate([np.zeros(int(rng.uniform(0, 8) * SAMPLE_RATE), np.float32), speech])
        for _ in range(5)
    ]
    windows += [(0.01 * rng.standard_normal(SAMPLE_RATE * 3)).astype(np.float32)]
    for profile in BUILT_IN.values():
        together = list(transcribe(model, windows, profile, batch=6))
        alone = list(transcribe(model, windows, profile, batch=1))
        assert together == alone


@pytest.mark.parametrize("vad", [True, False])
@pytest.mark.parametrize("profile", list(BUILT_IN))
def test_silence_has_no_text(pipeline: Pipeline, tmp_path: Path, profile: str, vad: bool) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(12 * SAMPLE_RATE), SAMPLE_RATE)
    assert ask(pipeline, tmp_path / "silence.wav", profile, vad=vad).text == ""


@needs_corpus
def test_connected_digits_of_a_speaker_it_never_heard(model: SpeechModel, tmp_path: Path) -> None:
    strings = DOMAINS["digits"].utterances(Places(CORPUS, tmp_path, strings=40))
    for profile in ("dense", "balanced"):
        assert score(model, strings, BUILT_IN[profile]).wer <= 0.08


@needs_corpus
def test_some_of_what_people_read_to_it(model: SpeechModel, tmp_path: Path) -> None:
    places = Places(CORPUS, tmp_path, strings=24)
    read = DOMAINS["librispeech"].utterances(places)
    assert score(model, read, BUILT_IN["dense"]).wer <= 0.95


@needs_corpus
def test_noise_has_no_text(pipeline: Pipeline) -> None:
    rows = [row for row in corpus.read_manifest(CORPUS) if row["path"].startswith("noise/")]
    assert rows
    for row in rows:
        assert ask(pipeline, CORPUS / row["path"]).text == "", row["path"]
