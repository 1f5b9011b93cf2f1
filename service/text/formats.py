"""A transcript in every format of an answer. Golden files pin each."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from service.languages import english_name
from service.text.subtitles import Layout, to_srt, to_tsv, to_vtt
from service.types import Notice, Segment, SpokenLanguage, Transcript, Word

FORMATS = ("json", "text", "srt", "vtt", "tsv", "verbose_json")
SUBTITLES = ("srt", "vtt")  # what a Layout is for

TIME_DECIMALS = 3
FINE_DECIMALS = 6


def to_text(t: Transcript) -> str:
    """The words alone, one line break at the end."""
    return t.text + "\n"


def to_json(t: Transcript) -> dict[str, Any]:
    """The answer of `POST /transcribe`. Seconds throughout."""
    return {
        "text": t.text,
        "language": t.language,
        "duration": round(t.duration, TIME_DECIMALS),
        "model": t.model,
        "profile": t.profile,
        "segments": [segment_json(segment) for segment in t.segments],
        "frames": {"total": t.total_frames, "kept": t.kept_frames},
        "timings": {
            stage: round(seconds, FINE_DECIMALS) for stage, seconds in asdict(t.timings).items()
        },
        "real_time_factor": round(t.real_time_factor, FINE_DECIMALS),
        "fallbacks": [asdict(fallback) for fallback in t.fallbacks],
        "warnings": warnings_json(t.warnings),
        "usage": _usage(t),
    }


def to_openai_json(
    t: Transcript, task: str, logprobs: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """OpenAI's `response_format=json`, with `logprobs` where they were asked for.

    A translation has no `languages`, as theirs has none.
    """
    languages = {"languages": [{"code": code} for code in t.languages]}
    return {
        "text": t.text,
        **(languages if task == "transcribe" else {}),
        **_openai_logprobs(logprobs),
        "usage": _usage(t),
        **_openai_warnings(t),
    }


def to_openai_verbose(
    t: Transcript,
    task: str,
    granularities: Collection[str] | None = None,
    logprobs: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """OpenAI's `response_format=verbose_json`; `task` is `transcribe` or `translate`.

    `granularities`: `segment`, `word` or both, whichever lists the answer is to hold; None:
    segments, and words where there are any.
    """
    if granularities is None:
        granularities = ("segment", "word") if any(s.words for s in t.segments) else ("segment",)
    words = {"words": [_openai_word(word) for s in t.segments for word in s.words]}
    segments = {"segments": [_openai_segment(segment) for segment in t.segments]}
    return {
        "task": task,
        # OpenAI's is that of the text: a translation is English.
        "language": "english" if task == "translate" else english_name(t.language),
        "duration": round(t.duration, TIME_DECIMALS),
        "text": t.text,
        **(words if "word" in granularities else {}),
        **(segments if "segment" in granularities else {}),
        **_openai_logprobs(logprobs),
        "usage": _usage(t),
        **_openai_warnings(t),
    }


def to_format(t: Transcript, name: str, task: str, layout: Layout) -> str | dict[str, Any]:
    """The transcript in one of `FORMATS`: text, or what becomes a JSON object."""
    match name:
        case "json":
            return to_json(t)
        case "verbose_json":
            return to_openai_verbose(t, task)
        case "srt":
            return to_srt(t.segments, layout)
        case "vtt":
            return to_vtt(t.segments, layout)
        case "tsv":
            return to_tsv(t.segments)
    return to_text(t)


def segment_json(segment: Segment) -> dict[str, Any]:
    """A segment of `POST /transcribe`, in its answer and in its events."""
    return {
        "id": segment.id,
        "start": round(segment.start, TIME_DECIMALS),
        "end": round(segment.end, TIME_DECIMALS),
        "text": segment.text,
        "avg_logprob": round(segment.avg_logprob, FINE_DECIMALS),
        "no_speech_prob": round(segment.no_speech_prob, FINE_DECIMALS),
        "compression_ratio": round(segment.compression_ratio, FINE_DECIMALS),
        "temperature": segment.temperature,
        **({"channel": segment.channel} if segment.channel is not None else {}),
        **({"words": [_word(word) for word in segment.words]} if segment.words else {}),
    }


def _word(word: Word) -> dict[str, Any]:
    """As openai-whisper has it: the leading space belongs to the word."""
    return {
        "word": word.text,
        "start": round(word.start, TIME_DECIMALS),
        "end": round(word.end, TIME_DECIMALS),
        "probability": round(word.probability, FINE_DECIMALS),
    }


def _openai_word(word: Word) -> dict[str, Any]:
    own = _word(word)
    return {"word": word.text.strip(), "start": own["start"], "end": own["end"]}


def _openai_segment(segment: Segment) -> dict[str, Any]:
    own = segment_json(segment)
    return {
        "id": own["id"],
        "seek": int(segment.start * 100),  # in log-mel frames of 10 ms, as Whisper counts
        **{name: own[name] for name in ("start", "end", "text")},
        "tokens": list(segment.tokens),
        **{
            name: own[name]
            for name in ("temperature", "avg_logprob", "compression_ratio", "no_speech_prob")
        },
        **({"channel": segment.channel} if segment.channel is not None else {}),
    }


def language_answer(spoken: SpokenLanguage) -> dict[str, Any]:
    """The answer of `POST /detect-language`; the language is None where nobody speaks."""
    language, probability = next(iter(spoken.probabilities), (None, 0.0))
    return {
        "language": language,
        "probability": round(probability, FINE_DECIMALS),
        "probabilities": {code: round(p, FINE_DECIMALS) for code, p in spoken.probabilities},
        "duration": round(spoken.duration, TIME_DECIMALS),
        "model": spoken.model,
        "profile": spoken.profile,
    }


def warnings_json(warnings: Sequence[Notice]) -> list[dict[str, Any]]:
    """What is wrong with an answer, times in seconds; fields that say nothing are left out."""
    return [
        {
            name: round(value, TIME_DECIMALS) if isinstance(value, float) else value
            for name, value in asdict(warning).items()
            if value is not None
        }
        for warning in warnings
    ]


def _openai_logprobs(logprobs: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    return {} if logprobs is None else {"logprobs": list(logprobs)}


def _openai_warnings(t: Transcript) -> dict[str, Any]:
    """OpenAI has no such field: there only where there is something to say."""
    return {"warnings": warnings_json(t.warnings)} if t.warnings else {}


def _usage(t: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(t.duration)}
