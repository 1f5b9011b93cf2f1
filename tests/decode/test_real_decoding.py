"""Real weights on real speech: the same tokens as openai-whisper's decoder and transformers'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import whisper
from transformers import WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from whisper.decoding import DecodingOptions
from whisper.model import Whisper as OpenAIWhisper

from service.audio.mel import log_mel
from service.families.whisper import Whisper
from service.profiles import BUILT_IN
from service.types import DecodeOptions, Encoded, Samples
from tests.checkpoints import openai_tokenizer, to_openai_whisper
from tests.speech import GERMAN, JAPANESE, NAME_SAMPLE, SAMPLE, samples_of, seconds
from tests.windows import finish

# openai-whisper's beam sorts a tensor by numpy.
pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),
]

DENSE = BUILT_IN["dense"]


@dataclass(frozen=True)
class Both:
    """One checkpoint as ours and as openai-whisper's, and windows as ours encodes them."""

    folder: Path
    ours: Whisper
    theirs: OpenAIWhisper
    encoded: dict[str, Encoded]


def both_of(folder: Path, ours: Whisper, windows: dict[str, Samples]) -> Both:
    openai_tokenizer(ours.info.multilingual)  # read here, where it is allowed to leave a file open
    encoded = ours.encode(log_mel(list(windows.values()), 80), [DENSE] * len(windows))
    return Both(folder, ours, to_openai_whisper(folder), dict(zip(windows, encoded, strict=True)))


@pytest.fixture(autouse=True)
def their_rules_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have none that who opens a segment says it."""
    monkeypatch.setattr("service.decode.rows.LEAST_LEFT", seconds(60))


@pytest.fixture(scope="module")
def english(tiny_en_folder: Path, tiny_en: Whisper) -> Both:
    first, second = samples_of(SAMPLE), samples_of(NAME_SAMPLE)
    pause = np.zeros(seconds(3), np.float32)
    windows = {
        "alone": first,
        "after silence": np.concatenate([pause, pause, first]),
        "two sentences": np.concatenate([first, pause[: seconds(0.4)], second]),
        "cut off": first[: seconds(4)],
    }
    return both_of(tiny_en_folder, tiny_en, windows)


@pytest.fixture(scope="module")
def foreign(base_folder: Path, base: Whisper) -> Both:
    windows = {"de": samples_of(GERMAN), "ja": samples_of(JAPANESE)}
    return both_of(base_folder, base, windows)


WISHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "without times": {"timestamps": False},
    "beam": {"beam_size": 5},
    "prompted": {"prompt": (3574, 11, 351, 464, 13)},
}


@pytest.mark.parametrize("wish", WISHES.values(), ids=WISHES)
def test_english_is_decoded_as_by_openai_whisper(english: Both, wish: dict[str, Any]) -> None:
    """Greedily every window, otherwise what is said in the first place and what is cut off."""
    names = list(english.encoded) if not wish else ["alone", "cut off"]
    assert_as_openai_whisper(english, dict.fromkeys(names, "en"), wish)


@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_other_languages_are_decoded_as_by_openai_whisper(foreign: Both, task: str) -> None:
    assert_as_openai_whisper(foreign, {name: name for name in foreign.encoded}, {"task": task})


def assert_as_openai_whisper(both: Both, languages: dict[str, str], wish: dict[str, Any]) -> None:
    """The windows named, of a language each: in one batch here, one after the other there."""
    batch = both.ours.new_decode_batch()
    wishes = [DecodeOptions(language, **wish) for language in languages.values()]
    windows = [both.encoded[name] for name in languages]
    batch.join(range(len(wishes)), windows, wishes)
    theirs = {name: list(v) if isinstance(v, tuple) else v for name, v in wish.items()}
    theirs["without_timestamps"] = not theirs.pop("timestamps", True)
    said = finish(batch, len(wishes))
    for window, language, ours in zip(windows, languages.values(), said, strict=True):
        options = DecodingOptions(language=language, temperature=0, fp16=False, **theirs)
        (expected,) = whisper.decode(both.theirs, window.states_TD[None].clone(), options)
        assert list(ours.tokens) == expected.tokens
        assert len(ours.tokens) > 5
        assert ours.avg_logprob == pytest.approx(expected.avg_logprob, abs=1e-3)
        assert ours.no_speech_prob == pytest.approx(expected.no_speech_prob, abs=1e-4)


@pytest.mark.parametrize("timestamps", [True, False])
def test_english_is_decoded_as_by_generate(english: Both, timestamps: bool) -> None:
    hub = WhisperForConditionalGeneration.from_pretrained(english.folder, dtype=torch.float32)
    windows = [english.encoded[name] for name in ("alone", "cut off")]
    states_BTD = torch.stack([window.states_TD for window in windows])
    answers = hub.eval().generate(
        encoder_outputs=BaseModelOutput(states_BTD),
        return_timestamps=timestamps,
        max_new_tokens=64,
        force_unique_generate_call=True,
    )
    batch = english.ours.new_decode_batch()
    wish = DecodeOptions("en", timestamps=timestamps)
    batch.join(range(2), windows, [wish] * 2)
    end = english.ours.checkpoint.vocabulary.eot
    for ours, theirs in zip(finish(batch, 2), answers.tolist(), strict=True):
        assert len(ours.tokens) > 5
        assert list(ours.tokens) == [token for token in theirs if token != end][-len(ours.tokens) :]


@pytest.mark.parametrize(("language", "clip"), [("de", GERMAN), ("ja", JAPANESE)])
def test_the_language_is_as_likely_as_in_openai_whisper(
    foreign: Both, language: str, clip: Path
) -> None:
    _, theirs = whisper.detect_language(foreign.theirs, log_mel([samples_of(clip)], 80)[0])
    batch = foreign.ours.new_decode_batch()
    batch.join([0], [foreign.encoded[language]], [DecodeOptions(language_only=True)])
    (heard,) = finish(batch, 1)
    assert heard.language == language == max(theirs, key=theirs.get)
    assert dict(heard.language_probs) == pytest.approx(theirs, abs=1e-4)
