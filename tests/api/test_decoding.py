"""The parameters that say how to decode, over real HTTP."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.errors import InvalidRequest
from service.families.fake import MAX_PROMPT_TOKENS, FakeModel
from service.model.protocol import ModelInfo
from service.params.decoding import decoding
from service.types import TEMPERATURES, DecodeOptions, Thresholds

from .harness import Running, refused, remembered, voice

MODEL = FakeModel()


def test_every_parameter_reaches_the_decoder() -> None:
    with remembered() as (running, wishes):
        answer = running.transcribe(
            voice(2),
            language="de",
            task="translate",
            temperature="0",
            beam_size="4",
            patience="1.5",
            length_penalty="0.5",
            seed="11",
            prompt="ba be",
            prefix="bi",
            suppress_tokens="-1, 7",
        )
    assert answer.status_code == 200
    assert wishes == [
        DecodeOptions(
            language="de",
            task="translate",
            seed=11,
            beam_size=4,
            patience=1.5,
            length_penalty=0.5,
            prompt=MODEL.encode_text("ba be"),
            prefix=MODEL.encode_text("bi"),
            suppress=(-1, 7),
        )
    ]
    assert answer.json()["text"].startswith("bi")


@pytest.mark.parametrize(
    ("param", "value", "says"),
    [
        ("beam_size", "0", "whole number 1 to 8"),
        ("beam_size", "9", "whole number 1 to 8"),
        ("beam_size", "2.5", "whole number 1 to 8"),
        ("patience", "0", "more than 0 to 10"),
        ("length_penalty", "1.5", "from 0 to 1"),
        ("seed", "-1", "whole number 0 to 4294967295"),
        ("seed", "42949672960", "whole number 0 to 4294967295"),
        ("temperature", "0,2", "from 0 to 1"),
        ("temperature", "0,,1", "from 0 to 1"),
        ("suppress_tokens", "1,two", "whole number 0 to"),
        ("suppress_tokens", "999999", "whole number 0 to"),
        ("compression_ratio_threshold", "no", "from 0 to 1000"),
        ("logprob_threshold", "0.5", "-100 to 0"),
        ("logprob_threshold", "nan", "-100 to 0"),
        ("no_speech_threshold", "1.1", "from 0 to 1"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_valid_ones(
    shared: Running, param: str, value: str, says: str
) -> None:
    answer = shared.transcribe(voice(0.1), **{param: value})
    assert says in refused(answer, 400, "invalid_request", param)


@pytest.mark.parametrize(
    ("given", "first", "tried"),
    [
        (None, 0.0, TEMPERATURES),
        ("0", 0.0, TEMPERATURES),
        ("0.4", 0.4, (0.4,)),
        ("0,0.5", 0.0, (0.0, 0.5)),
    ],
)
def test_a_temperature_of_0_is_raised_and_any_other_stays(
    given: str | None, first: float, tried: tuple[float, ...]
) -> None:
    asked = decoding({"temperature": (given,)} if given else {}, MODEL)
    assert (asked.options.temperature, asked.temperatures) == (first, tried)


def test_thresholds_are_whispers_unless_they_are_given() -> None:
    assert decoding({}, MODEL).thresholds == Thresholds()
    given = {
        "compression_ratio_threshold": ("3",),
        "logprob_threshold": ("-0.5",),
        "no_speech_threshold": ("0.25",),
    }
    assert decoding(given, MODEL).thresholds == Thresholds(3.0, -0.5, 0.25)


def test_a_long_prompt_loses_its_beginning_and_its_hotwords_never() -> None:
    hot, said = MODEL.encode_text("bo"), MODEL.encode_text("ba be" + " bi" * 400)
    asked = decoding({"prompt": ("ba be" + " bi" * 400,), "hotwords": ("bo",)}, MODEL)
    assert asked.options.prompt == hot + said[-(MAX_PROMPT_TOKENS - 1) :]
    many = decoding({"prompt": ("ba",), "hotwords": ("bo " * 400,)}, MODEL).options.prompt
    assert many == hot * (MAX_PROMPT_TOKENS // 2) + MODEL.encode_text("ba")


class Unprompted(FakeModel):
    @property
    def info(self) -> ModelInfo:
        return replace(super().info, max_prompt_tokens=0)


@pytest.mark.parametrize("param", ["prompt", "prefix", "hotwords"])
def test_a_model_that_takes_no_prompt_says_so(param: str) -> None:
    with pytest.raises(InvalidRequest, match=f"takes no {param}") as refusal:
        decoding({param: ("ba",)}, Unprompted())
    assert refusal.value.param == param
