"""A hypothesis and the window it was made of -> its words with their times.

Source: `find_alignment`, `add_word_timestamps` and `merge_punctuations` of openai-whisper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from service.model import decoder
from service.model.alignment import Alignment
from service.model.tokens import Vocabulary
from service.model.weights import DecoderWeights
from service.types import DecodeOptions, Encoded, Word
from service.words.splitting import split_words
from service.words.timing import token_times

OPENING = "\"'“¿([{-"
CLOSING = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001 - full-width, as written in Chinese
SENTENCE_ENDS = ".。!！?？"  # noqa: RUF001
LONGEST_MEDIAN_S = 0.7
TINY = 1e-30


@dataclass(slots=True)
class _Timed:
    text: str
    start: float
    end: float
    probability: float
    opens: bool


def find_words(
    weights: DecoderWeights,
    vocabulary: Vocabulary,
    alignment: Alignment,
    encoded: Encoded,
    options: DecodeOptions,
    tokens: Sequence[int],
) -> tuple[Word, ...]:
    """The words of a hypothesis' `tokens`, with times from the window's start.

    Reads the whole hypothesis once more to watch the alignment heads. A word's times are those of
    kept frames with sound at their original positions, and its probability the mean of its
    tokens' among text tokens. `options.language` has to be known. A prefix is part of the
    `tokens`; what was said before is not read again.
    """
    text = [token for token in tokens if token < vocabulary.eot]
    if not text:
        return ()
    # The words alone, without their timestamps, as openai-whisper has it.
    prompt = vocabulary.prompt(replace(options, prompt=(), prefix=(), timestamps=False))
    sequence = torch.tensor([[*prompt, *text, vocabulary.eot]], device=encoded.states_TD.device)
    logits_BNV, watched = decoder.forward_watched(
        weights,
        sequence,
        encoded.states_TD[None],
        alignment.heads,
        encoded.log_weights_T,
        encoded.gates,
    )
    # A row's attention is of what it predicts: the row before a token is that token's.
    rows = range(len(prompt) - 1, len(prompt) - 1 + len(text))
    sounding = _count_sounding(encoded)
    attention_HNT = torch.cat(watched)[..., :sounding]
    attention_HNT = attention_HNT / attention_HNT.sum(-1, keepdim=True).clamp_min(TINY)
    times = token_times(
        attention_HNT,
        encoded.positions_T[:sounding],
        [*rows, rows.stop],
        pooled=encoded.pooled,
    )
    logits_NV = logits_BNV[0, rows.start : rows.stop, : vocabulary.eot]
    probabilities = logits_NV.softmax(-1)[range(len(text)), text]
    words = [
        _Timed(
            word.text,
            start=float(times.starts[word.first]) * vocabulary.precision_s,
            end=float(times.ends[word.end - 1]) * vocabulary.precision_s,
            probability=float(probabilities[word.first : word.end].mean()),
            opens=word.opens,
        )
        for word in split_words(vocabulary, tokens, options.language or "en")
    ]
    _shorten(words)
    return tuple(
        Word(word.start, max(word.start, word.end), word.text, word.probability)
        for word in _merge(words)
    )


def _count_sounding(encoded: Encoded) -> int:
    """Kept frames that hold the recording, at least one: the padding is nobody's time."""
    if encoded.audio_frames is None:
        return len(encoded.positions_T)
    return max(1, int((encoded.positions_T < encoded.audio_frames).sum()))


def _shorten(words: list[_Timed]) -> None:
    """Around a sentence's end a word takes in the pause: it keeps twice the median at most."""
    lengths = [word.end - word.start for word in words if word.end != word.start]
    longest = 2 * min(LONGEST_MEDIAN_S, float(np.median(lengths))) if lengths else 0.0
    for previous, word in pairwise(words):
        if word.end - word.start > longest > 0:
            if word.text in SENTENCE_ENDS:
                word.end = word.start + longest
            elif previous.text in SENTENCE_ENDS:
                word.start = word.end - longest


def _merge(words: Sequence[_Timed]) -> list[_Timed]:
    """Punctuation joins the word it stands at, within a segment, and takes that word's times."""
    opened: list[_Timed] = []
    for word in reversed(words):
        following = opened[-1] if opened else None
        joins = word.text.startswith(" ") and word.text.strip() in OPENING
        if joins and following is not None and not following.opens:
            following.text, following.opens = word.text + following.text, word.opens
        else:
            opened.append(word)
    merged: list[_Timed] = []
    for word in reversed(opened):
        previous = merged[-1] if merged else None
        joins = word.text in CLOSING and not word.opens
        if joins and previous is not None and not previous.text.endswith(" "):
            previous.text += word.text
        else:
            merged.append(word)
    return merged
