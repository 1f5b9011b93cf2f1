"""The guard while decoding: says when a window only repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

# A loop is one unit of at most MAX_UNIT tokens, said MIN_REPEATS times or more in a row, over at
# least MIN_SPAN tokens: the same word 32 times, a phrase of eight tokens four times. That
# is more than anybody says in half a minute; text so repetitive has a compression ratio that
# Whisper's guard refuses at the end anyway.
MAX_UNIT = 24
MIN_REPEATS = 4
MIN_SPAN = 32
# Loops that stumble, such as a word 20 times and then another: the last STUMBLING_SPAN tokens have
# no more than MAX_TRIPLES different runs of three.
STUMBLING_SPAN = 64
MAX_TRIPLES = 16
# How often a growing row is looked at: a loop is seen at most so many tokens late.
STRIDE = 8


def is_looping(text: Sequence[int]) -> bool:
    """Whether text tokens, timestamps left out, end in a loop."""
    if len(text) < MIN_SPAN:
        return False
    longest = min(MAX_UNIT, len(text) // MIN_REPEATS)
    return any(_repeats(text, unit) for unit in range(1, longest + 1)) or _stumbles(text)


def _repeats(text: Sequence[int], unit: int) -> bool:
    span = max(MIN_SPAN, unit * MIN_REPEATS)
    if span > len(text):
        return False
    return all(text[-i] == text[-i - unit] for i in range(1, span - unit + 1))


def _stumbles(text: Sequence[int]) -> bool:
    if len(text) < STUMBLING_SPAN:
        return False
    last = text[-STUMBLING_SPAN:]
    return len(set(zip(last, last[1:], last[2:], strict=False))) <= MAX_TRIPLES


def is_due(num_tokens: int) -> bool:
    """Whether a row of so many tokens is to be looked at."""
    return num_tokens >= MIN_SPAN and num_tokens % STRIDE == 0
