from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import ConfigError, EngineError
from service.lab import synthesis
from service.lab.speech_set import SpeechSet, load_speech
from service.lab.synthesis import plan, synthesise
from service.lab.synthesisers import missing_engines, say
from service.types import SAMPLE_RATE

needs_engines = pytest.mark.skipif(
    bool(missing_engines()),
    reason=f"speech synthesis is not installed here: {', '.join(missing_engines())}",
)
COUNT = 30


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech") / "train"
    synthesise(folder, "train", COUNT, seed=5)
    return folder


@pytest.fixture(scope="module")
def speech(spoken: Path) -> SpeechSet:
    return load_speech(spoken)


@needs_engines
def test_plan_is_a_function_of_split_count_and_seed() -> None:
    assert plan("train", 50, 1) == plan("train", 50, 1)
    assert plan("train", 50, 1) != plan("train", 50, 2)
    assert plan("train", 80, 1)[:50] == plan("train", 50, 1)


@needs_engines
def test_no_voice_of_the_test_split_is_in_the_train_split() -> None:
    train = {(one.engine, one.voice) for one in plan("train", 4000, 1)}
    test = {(one.engine, one.voice) for one in plan("test", 4000, 1)}
    assert not train & test
    assert {("flite", "rms"), ("festival", "ked_diphone")} <= test
    trained = [voice.split("+") for engine, voice in train if engine == "espeak-ng"]
    unheard = [voice.split("+") for engine, voice in test if engine == "espeak-ng"]
    assert "gmw/en-GB-scotland" not in {accent for accent, _ in trained}
    variants = {variant for _, variant in trained}
    assert all(a == "gmw/en-GB-scotland" or v not in variants for a, v in unheard)
    assert len({v for _, v in unheard} - variants) >= 5


@needs_engines
def test_every_digit_engine_and_length_gets_its_share() -> None:
    plans = plan("train", 6000, 1)
    engines = Counter(one.engine for one in plans)
    assert engines["espeak-ng"] / 6000 == pytest.approx(0.65, abs=0.03)
    assert engines["festival"] / 6000 == pytest.approx(0.10, abs=0.02)
    lengths = Counter(len(one.text.split()) for one in plans)
    assert lengths[1] / 6000 == pytest.approx(0.27, abs=0.03)
    assert set(lengths) == set(range(1, 11))
    words = Counter(word for one in plans for word in one.text.split())
    zeros = words["zero"] + words["oh"]
    assert 0.01 < words["oh"] / zeros < 0.06
    shares = [zeros, *(words[digit] for digit in synthesis.DIGITS[1:])]
    assert max(shares) < 1.1 * min(shares)
    assert set(words) == {*synthesis.DIGITS, "oh"}


@needs_engines
def test_test_strings_have_three_to_ten_digits() -> None:
    assert {len(one.text.split()) for one in plan("test", 1000, 1)} == set(range(3, 11))


@needs_engines
def test_prompts_say_the_transcript_and_pause_in_different_places() -> None:
    plans = plan("train", 500, 3)
    for one in plans:
        assert one.prompt.replace(",", "").replace(".", "") == one.text
    assert sum("," in one.prompt for one in plans) > 100
    assert sum("." in one.prompt[:-1] for one in plans) > 20
    assert sum(one.prompt == one.text for one in plans) > 100


@needs_engines
def test_every_clip_has_sound_of_a_plausible_length(speech: SpeechSet) -> None:
    assert len(speech) == COUNT
    assert {voice.split("/")[0] for voice in speech.voices} == {"espeak-ng", "flite", "festival"}
    for i in range(len(speech)):
        wave = speech.get(i)
        assert wave.dtype == np.float32
        assert np.sqrt(np.mean(wave**2)) > 0.01
        assert np.abs(wave).max() < 1
        seconds_per_word = len(wave) / SAMPLE_RATE / len(speech.texts[i].split())
        assert 0.15 < seconds_per_word < 1.5


@needs_engines
def test_silence_at_the_ends_is_at_most_50_ms(speech: SpeechSet) -> None:
    for i in range(len(speech)):
        loud = np.flatnonzero(np.abs(speech.get(i)) > 0.01 * np.abs(speech.get(i)).max())
        sound = np.flatnonzero(np.abs(speech.get(i)) > 0.0025 * np.abs(speech.get(i)).max())
        assert sound[0] <= SAMPLE_RATE // 20
        assert speech.lengths[i] - 1 - sound[-1] <= SAMPLE_RATE // 20
        assert loud[0] < SAMPLE_RATE // 2


@needs_engines
def test_clips_lie_one_after_another(speech: SpeechSet) -> None:
    ends = speech.offsets + speech.lengths
    assert speech.offsets[0] == 0
    assert np.array_equal(ends[:-1], speech.offsets[1:])
    assert ends[-1] == len(speech.samples)


@needs_engines
def test_the_same_seed_gives_the_same_bytes(spoken: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    synthesise(again, "train", COUNT, seed=5, processes=1)
    for name in ("samples.i16", "index.tsv"):
        assert (again / name).read_bytes() == (spoken / name).read_bytes()


@needs_engines
@pytest.mark.parametrize(
    ("engine", "voice"),
    [
        ("espeak-ng", "gmw/en-US+f3"),
        ("flite", "slt"),
        ("flite", "kal"),
        ("festival", "kal_diphone"),
        ("festival", "ked_diphone"),
        ("festival", "cmu_us_slt_arctic_hts"),
    ],
)
def test_each_engine_says_all_of_what_it_is_given(engine: str, voice: str) -> None:
    one = replace(plan("train", 1, 1)[0], engine=engine, voice=voice, rate=1.0, gap=0)
    texts = ("six", "two", "six two five one nine seven three four")
    clips = say([replace(one, prompt=text) for text in texts])
    assert not np.array_equal(clips[0], clips[1])
    assert len(clips[2]) > 2 * max(len(clips[0]), len(clips[1]))


@needs_engines
@pytest.mark.parametrize(
    ("engine", "voice"), [("espeak-ng", "gmw/en"), ("flite", "awb"), ("festival", "kal_diphone")]
)
def test_a_higher_rate_is_shorter(engine: str, voice: str) -> None:
    one = replace(plan("train", 1, 1)[0], engine=engine, voice=voice, prompt="four two seven")
    slow, fast = say([replace(one, rate=0.8), replace(one, rate=1.2)])
    assert len(slow) > 1.15 * len(fast)


def test_missing_engines_are_named_with_the_line_that_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_engines() == ["espeak-ng", "flite", "festival"]
    with pytest.raises(ConfigError, match=r"espeak-ng, flite, festival.*apt-get install"):
        synthesise(tmp_path / "train", "train", 3, seed=1)
    assert list(tmp_path.iterdir()) == []


@needs_engines
def test_an_engine_that_fails_leaves_no_half_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "bin" / "flite"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no voice >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(broken.parent), prepend=os.pathsep)
    with pytest.raises(EngineError, match="flite ended with 3: no voice"):
        synthesise(tmp_path / "data" / "train", "train", COUNT, seed=5)
    assert list((tmp_path / "data").iterdir()) == []


@needs_engines
def test_an_engine_that_says_nothing_is_an_error() -> None:
    one = replace(plan("train", 1, 1)[0], engine="espeak-ng", voice="gmw/en", prompt=",")
    with pytest.raises(EngineError, match="gave no sound"):
        say([one])


@needs_engines
def test_what_cannot_be_made_is_refused(spoken: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        synthesise(spoken, "train", 3, seed=1)
    with pytest.raises(ConfigError, match="train, test"):
        synthesise(tmp_path / "a", "dev", 3, seed=1)
    with pytest.raises(ConfigError, match="count is 0"):
        synthesise(tmp_path / "a", "train", 0, seed=1)
    with pytest.raises(ConfigError, match="processes is 0"):
        synthesise(tmp_path / "a", "train", 3, seed=1, processes=0)


@needs_engines
def test_a_folder_that_is_not_whole_is_refused(spoken: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no speech in"):
        load_speech(tmp_path)
    (tmp_path / "index.tsv").write_bytes((spoken / "index.tsv").read_bytes())
    (tmp_path / "samples.i16").write_bytes((spoken / "samples.i16").read_bytes()[:-2])
    with pytest.raises(ConfigError, match="not as long as its index says"):
        load_speech(tmp_path)
