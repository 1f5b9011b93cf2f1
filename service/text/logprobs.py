"""The tokens of segments with their log-probabilities, as OpenAI lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from service.types import Segment

DECIMALS = 6


def logprobs_json(
    segments: Iterable[Segment], token_bytes: Callable[[int], bytes]
) -> list[dict[str, Any]]:
    """Each text token as `token`, its `logprob` and its `bytes`; `token_bytes` is the model's.

    A token may be part of a character: its `token` then has U+FFFD for what is not whole, its
    `bytes` are exact. All bytes joined are the text, but for white space around windows.
    """
    return [
        {
            "token": raw.decode(errors="replace"),
            "logprob": round(logprob, DECIMALS),
            "bytes": list(raw),
        }
        for segment in segments
        for token, logprob in zip(segment.tokens, segment.token_logprobs, strict=True)
        if (raw := token_bytes(token))
    ]
