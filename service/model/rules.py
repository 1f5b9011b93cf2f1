"""Which tokens may come next: Whisper's logit rules, for rows at different steps at once.

Source: `decoding.py` of openai-whisper (SuppressBlank, SuppressTokens, ApplyTimestampRules). One
is not theirs: who opens a segment says it. Of one that its 30 s cut off Whisper was trained to say
when it begins, and to end there (arXiv 2212.04356, section 2.3), so that the next 30 s could begin
with it; where a recording nearly fills its window, it takes the last sentence for such a one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from service.model.tokens import Vocabulary

# Rows of `Rules.bias_KV`: what is banned whatever was said before.
_TIMED, _TIMED_FIRST, _TIMED_CLOSING, _TIMED_OPENED, _PLAIN, _PLAIN_FIRST = range(6)


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """A vocabulary's rules on a device. `bias_KV`: (6, V) float32, a row per situation: -inf where
    a token is banned, else 0. Adding takes a tenth of the time that filling by a mask takes."""

    bias_KV: Tensor
    timestamp_begin: int
    timestamp_end: int
    last_initial_timestamp: int


def make_rules(vocabulary: Vocabulary, device: torch.device) -> Rules:
    """The rules of a vocabulary, made once per checkpoint."""
    begin = vocabulary.timestamp_begin
    end = begin + vocabulary.num_timestamps
    banned = torch.zeros(6, vocabulary.size, dtype=torch.bool)
    banned[:, list(vocabulary.suppress_tokens)] = True
    for first in (_TIMED_FIRST, _PLAIN_FIRST):
        banned[first, list(vocabulary.begin_suppress_tokens)] = True
    banned[_TIMED : _TIMED_OPENED + 1, vocabulary.no_timestamps] = True
    banned[_TIMED_FIRST, :begin] = True
    banned[_TIMED_CLOSING, : vocabulary.eot] = True
    banned[_PLAIN:, begin:] = True
    # Where all else is suppressed, ending at once is all that is left.
    banned[_TIMED_OPENED, vocabulary.eot] = not banned[_TIMED_OPENED, : vocabulary.eot].all()
    banned[_PLAIN_FIRST, vocabulary.eot] &= not banned[_PLAIN_FIRST].all()
    limit = vocabulary.max_initial_timestamp_index
    last_initial = end - 1 if limit is None else min(begin + limit, end - 1)
    bias = torch.zeros(banned.shape).masked_fill_(banned, -torch.inf)
    return Rules(bias.to(device), begin, end, last_initial)


def suppressing(vocabulary: Vocabulary, suppress: Sequence[int], device: torch.device) -> Tensor:
    """`Rules.bias_KV` where a request says itself which text tokens are never to be said.

    -1 among `suppress` stands for the checkpoint's own. Control tokens are suppressed anyway, and
    timestamps and end-of-text never: without them a window could not go on.
    """
    text = {token for token in suppress if 0 <= token < vocabulary.eot}
    own = vocabulary.suppress_tokens if -1 in suppress else ()
    control = range(vocabulary.eot + 1, vocabulary.timestamp_begin)
    tokens = tuple({*text, *own, *control})
    return make_rules(replace(vocabulary, suppress_tokens=tokens), device).bias_KV


def apply(
    rules: Rules,
    logits_BV: Tensor,
    histories: Sequence[Sequence[int]],
    timestamps: Sequence[bool],
    own: Mapping[int, Tensor] | None = None,
    unsaid: Sequence[int] = (),
) -> Tensor:
    """Float32 logits (B, V), in place: -inf where a token may not come next.

    `histories`: each row's own tokens so far, without the prompt. With `timestamps` a row obeys
    the timestamp rules: they come first and in pairs, never decrease, no segment is empty, and
    one is due once all of them together are likelier than any other token. Without, there are none.
    `own`: what `suppressing` gave, by row, for those that do not go by the checkpoint's.
    `unsaid`: for each row a timestamp; a segment that opens before it is not left without text.
    """
    own = own or {}
    until = unsaid or [0] * len(histories)
    rows = [_situation(rules, *row) for row in zip(histories, timestamps, until, strict=True)]
    for number, (situation, _, _) in enumerate(rows):
        logits_BV[number] += own.get(number, rules.bias_KV)[situation]
    first_B1, last_B1 = torch.tensor(rows, device=logits_BV.device).T[1:, :, None]
    text, times = logits_BV[:, : rules.timestamp_begin], logits_BV[:, rules.timestamp_begin :]
    ids = torch.arange(rules.timestamp_begin, logits_BV.shape[1], device=logits_BV.device)
    times.masked_fill_((ids < first_B1) | (ids > last_B1), -torch.inf)
    due_B = times.logsumexp(dim=1) > text.amax(dim=1)
    text += torch.zeros_like(due_B, dtype=text.dtype).masked_fill_(due_B, -torch.inf)[:, None]
    return logits_BV


def likeliest(logits_BV: Tensor) -> Tensor:
    """The likeliest token of each row: (B,) int64, the first of equals, and of NaN if there is one.

    On a CPU numpy finds it in a tenth of torch's time.
    """
    if logits_BV.is_cpu:
        return torch.from_numpy(logits_BV.numpy().argmax(-1))
    return logits_BV.argmax(-1)


def _situation(
    rules: Rules, history: Sequence[int], timed: bool, unsaid: int
) -> tuple[int, int, int]:
    """The row of `bias_KV`, and the first and last timestamp allowed (first > last: none)."""
    begin, last = rules.timestamp_begin, rules.timestamp_end - 1
    if not timed:
        return (_PLAIN if history else _PLAIN_FIRST), begin, last
    if not history:
        return _TIMED_FIRST, begin, rules.last_initial_timestamp
    latest = next((token for token in reversed(history) if token >= begin), begin - 1)
    if history[-1] < begin:
        return _TIMED, latest + 1, last
    if len(history) < 2 or history[-2] >= begin:
        opens = len(history) >= 2 and latest < unsaid
        return (_TIMED_OPENED if opens else _TIMED), last + 1, last
    return _TIMED_CLOSING, latest, last
