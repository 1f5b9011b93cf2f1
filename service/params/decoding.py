"""How a request wants its windows decoded: the parameters, validated, as the decoder's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from service.errors import InvalidRequest
from service.model.protocol import SpeechModel
from service.params.values import Given, number, one, several, whole
from service.types import TEMPERATURES, DecodeOptions, Thresholds

MAX_BEAM_SIZE = 8
MAX_PATIENCE = 10.0
MAX_SEED = 2**32 - 1
MAX_TEMPERATURE = 1.0
MAX_COMPRESSION_RATIO = 1000.0
MIN_LOGPROB = -100.0

_TEMPERATURE = {
    "type": "string",
    "description": (
        "0 to 1. 0, which is the default, is raised for a window whose text is not worth keeping; "
        "any other number stays. A comma-separated list is tried in turn."
    ),
}
_PROMPT = {
    "type": "string",
    "description": (
        "Text that the model takes to have been said before, for spelling and style. The same for "
        "every window: windows are decoded side by side and do not wait for each other's text. "
        "Its beginning is cut where it is longer than half the model's context."
    ),
}
KEYWORDS = {
    "type": "array",
    "items": {"type": "string"},
    "description": "OpenAI's way to say hotwords.",
}
LANGUAGES = {
    "type": "array",
    "items": {"type": "string"},
    "description": "The only languages to choose from where the language is detected.",
}
_HOTWORDS = {"type": "string", "description": "Words to listen for; they go before the prompt."}
OPENAI_PROPERTIES: dict[str, Any] = {
    "temperature": _TEMPERATURE,
    "prompt": _PROMPT,
    "hotwords": _HOTWORDS,
    "keywords[]": KEYWORDS,
}
PROPERTIES: dict[str, Any] = {
    **OPENAI_PROPERTIES,
    "beam_size": {"type": "integer", "minimum": 1, "maximum": MAX_BEAM_SIZE, "default": 1},
    "patience": {"type": "number", "maximum": MAX_PATIENCE, "default": 1},
    "length_penalty": {"type": "number", "minimum": 0, "maximum": 1},
    "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED, "default": 0},
    "prefix": {"type": "string", "description": "Text that every window begins with."},
    "suppress_tokens": {
        "type": "string",
        "description": "Comma-separated token ids; -1 stands for the checkpoint's own.",
    },
    "compression_ratio_threshold": {"type": "number", "default": Thresholds().compression_ratio},
    "logprob_threshold": {"type": "number", "maximum": 0},
    "no_speech_threshold": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": Thresholds().no_speech,
    },
}

# Of several texts that a model may say, which one: of no meaning where frames speak for themselves.
CHOICES = (
    *("temperature", "seed", "beam_size", "patience", "length_penalty"),
    *("prefix", "suppress_tokens"),
)
# What happens in any case.
_NO_CHOICE = {
    "temperature": 0.0,
    "seed": 0.0,
    "beam_size": 1.0,
    "patience": 1.0,
    "length_penalty": 1.0,
    "suppress_tokens": -1.0,
}


@dataclass(frozen=True, slots=True)
class Decoding:
    """`options` without language and task, and what a hypothesis has to keep to."""

    options: DecodeOptions
    thresholds: Thresholds
    temperatures: tuple[float, ...]


def decoding(given: Given, model: SpeechModel) -> Decoding:
    """The parameters of `PROPERTIES` that are given. Raises InvalidRequest."""
    temperatures = _temperatures(one(given, "temperature"))
    penalty, suppress = one(given, "length_penalty"), one(given, "suppress_tokens")
    options = DecodeOptions(
        temperature=temperatures[0],
        seed=whole("seed", one(given, "seed"), 0, MAX_SEED) or 0,
        beam_size=whole("beam_size", one(given, "beam_size"), 1, MAX_BEAM_SIZE) or 1,
        patience=number("patience", one(given, "patience"), 1.0, MAX_PATIENCE, positive=True),
        length_penalty=None if penalty is None else number("length_penalty", penalty, 1.0, 1.0),
        prompt=_prompt(one(given, "prompt"), _hotwords(given), model),
        prefix=_tokens("prefix", one(given, "prefix"), model),
        suppress=None if suppress is None else _ids(suppress, model.info.vocab_size),
    )
    if model.info.frame_by_frame:
        _refuse_choices(given, model.info.name)
    return Decoding(options, _thresholds(given), temperatures)


def asks_for_a_choice(given: Given, param: str) -> bool:
    """Whether one of `CHOICES` is given, and as something else than what happens in any case."""
    value = one(given, param)
    if value is None:
        return False
    try:
        return float(value) != _NO_CHOICE.get(param)
    except ValueError:
        return True


def _refuse_choices(given: Given, name: str) -> None:
    """Those of `CHOICES` that ask for more than the likeliest text."""
    for param in CHOICES:
        if asks_for_a_choice(given, param):
            raise InvalidRequest(
                f"The model {name} says what is likeliest frame by frame (CTC), and takes no "
                f"{param}: leave it out.",
                param,
            )


def _temperatures(value: str | None) -> tuple[float, ...]:
    parts = [part.strip() for part in (value or "0").split(",")]
    asked = tuple(number("temperature", part, 0.0, MAX_TEMPERATURE) for part in parts)
    return TEMPERATURES if asked == (0.0,) else asked


def _thresholds(given: Given) -> Thresholds:
    ratio, silence = one(given, "compression_ratio_threshold"), one(given, "no_speech_threshold")
    usual = Thresholds()
    return Thresholds(
        number(
            "compression_ratio_threshold", ratio, usual.compression_ratio, MAX_COMPRESSION_RATIO
        ),
        _logprob("logprob_threshold", one(given, "logprob_threshold")),
        number("no_speech_threshold", silence, usual.no_speech, 1.0),
    )


def _logprob(name: str, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        parsed = float(value)
    except ValueError:
        parsed = 1.0
    if not MIN_LOGPROB <= parsed <= 0:
        raise InvalidRequest(f"{name} '{value}' is not a number {MIN_LOGPROB:g} to 0.", name)
    return parsed


def _ids(value: str, vocab_size: int) -> tuple[int, ...]:
    name, last = "suppress_tokens", vocab_size - 1
    parts = [part.strip() for part in value.split(",")]
    return tuple(-1 if part == "-1" else whole(name, part, 0, last) or 0 for part in parts)


def _hotwords(given: Given) -> str | None:
    hot = [*given.get("hotwords", ()), *several(given, "keywords")]
    return ", ".join(hot) or None


def _prompt(prompt: str | None, hotwords: str | None, model: SpeechModel) -> tuple[int, ...]:
    """Hotwords, at most half of what fits if there is a prompt too, then the prompt's end."""
    most = model.info.max_prompt_tokens
    hot = _tokens("hotwords", hotwords, model)[: most // 2 if prompt else most]
    said = _tokens("prompt", prompt, model)
    return hot + said[max(0, len(said) - (most - len(hot))) :]


def _tokens(name: str, text: str | None, model: SpeechModel) -> tuple[int, ...]:
    if text is None:
        return ()
    if not model.info.max_prompt_tokens:
        raise InvalidRequest(f"The model {model.info.name} takes no {name}: leave it out.", name)
    # A word follows a space, as openai-whisper has it.
    return model.encode_text(f" {text.strip()}")
