"""Which tokens may come next: Whisper's logit rules, for rows at different steps at once.

Source: `decoding.py` of openai-whisper (SuppressBlank, SuppressTokens, ApplyTimestampRules). One
is not theirs: who opens a segment says it. Of one that its 30 s cut off Whisper was trained to say
when it begins, and to end there (arXiv 2212.04356, section 2.3), so that the next 30 s could begin
with it; where a recording nearly fills its window, it takes the last sentence for such a one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from service.model.tokens import Vocabulary

# Rows of `Rules.bias_KV`: what is banned whatever was said before.
_TIMED, _TIMED_FIRST, _TIMED_CLOSING, _TIMED_OPENED, _PLAIN, _PLAIN_FIRST = range(6)
# States of `Said`. With timestamps: nothing was said; one timestamp; text last; a timestamp after
# text; a timestamp after another. Without: nothing, something.
_NOTHING, _ONE, _TEXT, _CLOSED, _PAIR, _PLAIN_NOTHING, _PLAIN_TEXT = range(7)
_NEXT = (  # of each, after a text token and after a timestamp
    *((_TEXT, _ONE), (_TEXT, _PAIR), (_TEXT, _CLOSED), (_TEXT, _PAIR), (_TEXT, _PAIR)),
    *((_PLAIN_TEXT, _PLAIN_TEXT), (_PLAIN_TEXT, _PLAIN_TEXT)),
)


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """A vocabulary's rules on a device. `bias_KV`: (6, V) float32, a row per situation: -inf where
    a token is banned, else 0. Adding takes a tenth of the time that filling by a mask takes.

    `next_ST`: (7, 2), the state after a text token and after a timestamp. `means_S4`: (7, 4), what
    a state means: its situation; how far after the latest timestamp the next may be, and where it
    has to be at least; the last one allowed.
    """

    bias_KV: Tensor
    next_ST: Tensor
    means_S4: Tensor
    timestamp_begin: int


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
    means = [
        (_TIMED_FIRST, 1, begin, last_initial),
        (_TIMED, 1, end, end - 1),
        (_TIMED, 1, begin, end - 1),
        (_TIMED_CLOSING, 0, begin, end - 1),
        (_TIMED, 1, end, end - 1),
        (_PLAIN_FIRST, 1, begin, end - 1),
        (_PLAIN, 1, begin, end - 1),
    ]
    return Rules(
        bias.to(device),
        torch.tensor(_NEXT, device=device),
        torch.tensor(means, device=device),
        begin,
    )


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


class Said(NamedTuple):
    """All that the rules look back on, of each row, on the device: (B,) int64 each.

    `state`: what the last tokens were; `latest`: the latest timestamp, one before the first where
    there is none; `unsaid`: a segment that opens before this timestamp is not left without text.
    """

    state: Tensor
    latest: Tensor
    unsaid: Tensor


def said(
    rules: Rules,
    histories: Sequence[Sequence[int]],
    timestamps: Sequence[bool],
    unsaid: Sequence[int] = (),
) -> Said:
    """`histories`: each row's own tokens so far, without the prompt; `timestamps`: whether it obeys
    the rules of timestamps; `unsaid`: for each row a timestamp, 0 if left out."""
    begin = rules.timestamp_begin
    rows = []
    until = unsaid or [0] * len(histories)
    for history, timed, before in zip(histories, timestamps, until, strict=True):
        state = _NOTHING if timed else _PLAIN_NOTHING
        for token in history[-2:]:  # what came before does not matter
            state = _NEXT[state][token >= begin]
        latest = next((token for token in reversed(history) if token >= begin), begin - 1)
        rows.append((state, latest, before))
    return Said(*torch.tensor(rows, device=rules.bias_KV.device).T)


def then(rules: Rules, before: Said, token_B: Tensor) -> Said:
    """What has been said once each row has said one more token. Nothing waits for the device."""
    is_time_B = token_B >= rules.timestamp_begin
    state_B = rules.next_ST[before.state, is_time_B.long()]
    return Said(state_B, torch.where(is_time_B, token_B, before.latest), before.unsaid)


def apply(
    rules: Rules, logits_BV: Tensor, so_far: Said, own: Mapping[int, Tensor] | None = None
) -> Tensor:
    """Float32 logits (B, V), in place: -inf where a token may not come next.

    Rows with timestamps obey their rules: they come first and in pairs, never decrease, no segment
    is empty, and one is due once all of them together are likelier than any other token. Without,
    there are none. `own`: what `suppressing` gave, by row, for those that do not go by the
    checkpoint's.
    """
    situation_B, first_B, last_B = _situations(rules, so_far)
    _ban(rules, logits_BV, situation_B, own or {})
    first_B1, last_B1 = first_B[:, None], last_B[:, None]
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


def _ban(rules: Rules, logits_BV: Tensor, situation_B: Tensor, own: Mapping[int, Tensor]) -> None:
    """Row by row on a CPU, which then copies no biases; at once where asking would be waiting."""
    if logits_BV.is_cpu:
        for number, situation in enumerate(situation_B.tolist()):
            # Not by +=, which copies the row onto itself.
            logits_BV[number].add_(own.get(number, rules.bias_KV)[situation])
        return
    bias_BV = rules.bias_KV[situation_B]
    for number, bias_KV in own.items():
        bias_BV[number] = bias_KV.index_select(0, situation_B[number : number + 1])[0]
    logits_BV += bias_BV


def _situations(rules: Rules, said: Said) -> tuple[Tensor, Tensor, Tensor]:
    """The row of `bias_KV`, and the first and last timestamp allowed (first > last: none)."""
    situation_B, more_B, least_B, last_B = rules.means_S4.index_select(0, said.state).unbind(1)
    opens_B = (said.state == _PAIR) & (said.latest < said.unsaid)
    situation_B = situation_B.masked_fill(opens_B, _TIMED_OPENED)
    return situation_B, torch.maximum(said.latest + more_B, least_B), last_B
