from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from loadtest.audio import BUCKETS, SAID, SAMPLE, Recording, built_in, describe, in_turns
from loadtest.audio import read_manifest as read
from service.errors import ConfigError
from service.families.whisper import Whisper
from service.text.wer import word_errors, words_of
from tests.harness import request, running, transcribe
from tests.speech import samples_of, seconds


def test_the_built_in_mix_is_as_long_as_it_says() -> None:
    recordings = built_in()
    bounds = [(least, most) for number, least, most in BUCKETS for _ in range(number)]
    for recording, (least, most) in zip(recordings, bounds, strict=True):
        samples, rate = soundfile.read(io.BytesIO(recording.data))
        assert least <= recording.seconds <= most
        assert len(samples) == round(recording.seconds * rate)


def test_the_built_in_mix_says_its_transcripts() -> None:
    # The sum of its samples is that of the sentences it says, cut from the repository's sample.
    voice = samples_of(SAMPLE)
    level = {
        text: float(np.abs(voice[seconds(begin_s) : seconds(end_s)]).sum())
        for text, begin_s, end_s in SAID
    }
    for recording in built_in():
        samples, _ = soundfile.read(io.BytesIO(recording.data), dtype="float32")
        said = [text for text in level if text in (recording.transcript or "")]
        assert said
        assert len(" ".join(said)) == len(recording.transcript or "")
        assert np.abs(samples).sum() == pytest.approx(sum(level[text] for text in said), rel=1e-2)


def test_sentences_are_cut_in_their_pauses() -> None:
    voice = samples_of(SAMPLE)
    for _, begin_s, end_s in SAID:
        for at_s in (begin_s, end_s):
            assert np.abs(voice[seconds(at_s - 0.005) : seconds(at_s + 0.005)]).max() < 0.03


@pytest.mark.model
def test_a_real_model_reads_what_the_transcripts_say(tiny_en: Whisper) -> None:
    recordings = [r for r in built_in() if r.seconds < 30][::4]
    with running(tiny_en) as service:
        for recording in recordings:
            heard = transcribe(service, io.BytesIO(recording.data), request(vad=True))
            said = words_of(recording.transcript or "")
            assert word_errors(said, words_of(heard.text)) < 0.2 * len(said)


def test_one_seed_is_one_mix() -> None:
    assert built_in(1) == built_in(1) != built_in(2)


def test_recordings_come_in_shuffled_rounds() -> None:
    recordings = built_in()
    rounds = list(itertools.islice(in_turns(recordings, seed=5), 2 * len(recordings)))
    first, second = rounds[: len(recordings)], rounds[len(recordings) :]
    assert sorted(r.name for r in first) == sorted(r.name for r in second)
    assert first != second
    assert rounds == list(itertools.islice(in_turns(recordings, seed=5), len(rounds)))


def wav(path: Path, seconds: float) -> None:
    soundfile.write(path, np.zeros(round(seconds * 8000)), 8000)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("m.tsv", 'path\tspeaker\ttranscript\na.wav\tx\t"one two\nb.wav\ty\t\n'),
        ("m.csv", 'speaker,path,transcript\nx,a.wav,"""one two"\ny,b.wav,\n'),
        ("bom.csv", '\ufeffpath,transcript\na.wav,"""one two"\nb.wav,\n'),
    ],
)
def test_a_manifest_is_read_with_tabs_or_commas(tmp_path: Path, name: str, table: str) -> None:
    wav(tmp_path / "a.wav", 1.5)
    wav(tmp_path / "b.wav", 0.5)
    (tmp_path / name).write_text(table, encoding="utf-8")
    assert read(tmp_path / name, most=10) == (
        Recording("a.wav", 1.5, '"one two', (tmp_path / "a.wav").read_bytes()),
        Recording("b.wav", 0.5, None, (tmp_path / "b.wav").read_bytes()),
    )


def test_of_a_long_manifest_some_are_drawn_by_the_seed(tmp_path: Path) -> None:
    for i in range(8):
        wav(tmp_path / f"{i}.wav", 0.1)
    (tmp_path / "m.csv").write_text("path\n" + "".join(f"{i}.wav\n" for i in range(8)))
    drawn = [[r.name for r in read(tmp_path / "m.csv", 3, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "No such file"),
        ("file,text\na.wav,one\n", "needs a column 'path'"),
        ("path,transcript\n", "at least one recording"),
        ("path,transcript\nnot-there.wav,one\n", "not-there.wav"),
        ("path,transcript\nm.csv,one\n", "recording .*m.csv"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(
    tmp_path: Path, table: str | None, message: str
) -> None:
    if table is not None:
        (tmp_path / "m.csv").write_text(table)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "m.csv", 10)


def test_a_mix_is_described_by_its_lengths() -> None:
    recordings = [Recording("", s, t, b"") for s, t in ((1.0, "a"), (2.0, None), (6.0, "b"))]
    assert describe(recordings) == (
        "3 recordings of 1.0-6.0 s, median 2.0 s, mean 3.0 s, 2 with a transcript"
    )
