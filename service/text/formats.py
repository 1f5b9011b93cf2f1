"""A transcript as plain text, as Winnow's JSON and as OpenAI's. Golden files pin each."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from service.text.languages import english_name
from service.types import Segment, Transcript, Word

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
        "segments": [_segment(segment) for segment in t.segments],
        "frames": {"total": t.total_frames, "kept": t.kept_frames},
        "timings": {
            stage: round(seconds, FINE_DECIMALS) for stage, seconds in asdict(t.timings).items()
        },
        "real_time_factor": round(t.real_time_factor, FINE_DECIMALS),
        "fallbacks": [asdict(fallback) for fallback in t.fallbacks],
    }


def to_openai_json(t: Transcript) -> dict[str, Any]:
    """OpenAI's `response_format=json`."""
    return {"text": t.text, "usage": _usage(t)}


def to_openai_verbose(
    t: Transcript, task: str, granularities: Collection[str] = ("segment",)
) -> dict[str, Any]:
    """OpenAI's `response_format=verbose_json`; `task` is `transcribe` or `translate`.

    `granularities`: `segment`, `word` or both, whichever lists the answer is to hold.
    """
    words = {"words": [_openai_word(word) for s in t.segments for word in s.words]}
    segments = {"segments": [_openai_segment(segment) for segment in t.segments]}
    return {
        "task": task,
        "language": english_name(t.language),
        "duration": round(t.duration, TIME_DECIMALS),
        "text": t.text,
        **(words if "word" in granularities else {}),
        **(segments if "segment" in granularities else {}),
        "usage": _usage(t),
    }


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "id": segment.id,
        "start": round(segment.start, TIME_DECIMALS),
        "end": round(segment.end, TIME_DECIMALS),
        "text": segment.text,
        "avg_logprob": round(segment.avg_logprob, FINE_DECIMALS),
        "no_speech_prob": round(segment.no_speech_prob, FINE_DECIMALS),
        "compression_ratio": round(segment.compression_ratio, FINE_DECIMALS),
        "temperature": segment.temperature,
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
    own = _segment(segment)
    return {
        "id": own["id"],
        "seek": int(segment.start * 100),  # in log-mel frames of 10 ms, as Whisper counts
        **{name: own[name] for name in ("start", "end", "text")},
        "tokens": list(segment.tokens),
        **{
            name: own[name]
            for name in ("temperature", "avg_logprob", "compression_ratio", "no_speech_prob")
        },
    }


def _usage(t: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(t.duration)}
