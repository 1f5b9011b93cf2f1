"""Beam search as pure functions: which sequences live on, and which one is the answer.

Source: `BeamSearchDecoder` and `MaximumLikelihoodRanker` of openai-whisper's `decoding.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One more `token` after the beam's sequence number `source`, and what all of it scores."""

    source: int
    token: int
    sum_logprob: float


@dataclass(frozen=True, slots=True)
class Scored:
    """A sequence without its end-of-text, and the log-probability of all its tokens.

    `logprobs`: that of each, without the end's.
    """

    tokens: tuple[int, ...]
    sum_logprob: float
    ended: bool
    logprobs: tuple[float, ...] = ()


def rank(
    candidates: Sequence[Candidate], beam_size: int, eot: int
) -> tuple[list[Candidate], list[Candidate]]:
    """The likeliest candidates that go on, at most `beam_size`, and those that ended before them.

    Both likeliest first. An end that is less likely than every candidate that goes on is dropped.
    """
    kept: list[Candidate] = []
    ended: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda c: c.sum_logprob, reverse=True):
        if candidate.token == eot:
            ended.append(candidate)
            continue
        kept.append(candidate)
        if len(kept) == beam_size:
            break
    return kept, ended


def max_finished(beam_size: int, patience: float) -> int:
    """How many ended sequences end the search (arXiv 2204.05424)."""
    return max(1, round(beam_size * patience))


def best(
    finished: Sequence[Scored],
    unfinished: Sequence[Scored],
    beam_size: int,
    length_penalty: float | None,
    num_given: int = 0,
) -> Scored:
    """The answer: `unfinished` sequences stand in where fewer than `beam_size` have ended.

    `unfinished` is likeliest first. The first `num_given` tokens of each do not count as length.
    Raises ValueError where there is no sequence at all.
    """
    missing = max(0, beam_size - len(finished))
    return max(
        [*finished, *unfinished[:missing]],
        key=lambda s: s.sum_logprob / _penalty(len(s.tokens) - num_given, length_penalty),
    )


def _penalty(length: int, length_penalty: float | None) -> float:
    """The length itself, or by the formula of Google's NMT (arXiv 1609.08144, equation 14)."""
    if length_penalty is None:
        return max(length, 1)
    return float(((5 + length) / 6) ** length_penalty)


def place(sources: Sequence[int]) -> list[int]:
    """A row for each sequence, such that as many as can be stay where their source is.

    `sources[i]` is the row that sequence i continues. The rows given are 0 to
    `len(sources)` - 1, each once.
    """
    rows: list[int | None] = [None] * len(sources)
    free = set(range(len(sources)))
    for number, source in enumerate(sources):
        if source in free:
            rows[number] = source
            free.remove(source)
    rest = sorted(free)
    return [rest.pop(0) if row is None else row for row in rows]
