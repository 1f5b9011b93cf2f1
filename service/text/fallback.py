"""What to do with a hypothesis that is not worth keeping: the next attempt, or none.

A sparse profile is tried again with half its sparsity, then with every frame; what is still not
right is the decoder's doing, and is sampled at rising temperatures, as openai-whisper does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from service.profiles import BUILT_IN, Profile
from service.text.guard import EMPTY, is_silent, retry_reason
from service.types import DecodeOptions, Hypothesis, Thresholds

HALF = "-half"
MAX_NAME = 64


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a window is decoded. `number` counts from 0."""

    number: int
    profile: Profile
    options: DecodeOptions


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt came to. `loud`: speech can be heard in the window."""

    hypothesis: Hypothesis
    text: str
    loud: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason`: why a hypothesis does not stand, None if it does; `following`: the next attempt,
    None if it stands or nothing is left to try."""

    reason: str | None = None
    following: Attempt | None = None


def judge(
    attempt: Attempt,
    outcome: Outcome,
    temperatures: Sequence[float],
    thresholds: Thresholds,
    doubt_below: float,
) -> Verdict:
    """Whether what an attempt came to stands, or else what to try next.

    A window has at most three attempts more than there are `temperatures` and one. What is not
    right with every frame is tried without its prompt before it is sampled: Whisper may repeat a
    prompt, or say nothing after it. Empty text is never sampled: with every frame and no prompt
    it is the model's answer. `doubt_below`: the model's own
    threshold of average log-probability.
    """
    if attempt.options.language_only:
        return Verdict()
    reason = retry_reason(outcome.hypothesis, outcome.text, outcome.loud, thresholds, doubt_below)
    if reason is None and _is_emptied(attempt, outcome, thresholds):
        reason = EMPTY
    if reason is None:
        return Verdict()
    number = attempt.number + 1
    if not attempt.profile.is_dense:
        return Verdict(reason, Attempt(number, _less_sparse(attempt), attempt.options))
    if attempt.options.prompt:
        options = replace(attempt.options, prompt=())
        return Verdict(reason, Attempt(number, attempt.profile, options))
    higher = [t for t in temperatures if t > attempt.options.temperature]
    if reason == EMPTY or not higher:
        return Verdict(reason)
    options = replace(attempt.options, temperature=min(higher))
    return Verdict(reason, Attempt(number, attempt.profile, options))


def _is_emptied(attempt: Attempt, outcome: Outcome, thresholds: Thresholds) -> bool:
    """Whether a prompt may be why there is no text: it sways the model's ear for silence too."""
    if not attempt.options.prompt:
        return False
    unheard = outcome.loud and not outcome.text.strip()
    return unheard or is_silent(outcome.hypothesis, thresholds)


def _less_sparse(attempt: Attempt) -> Profile:
    profile = attempt.profile
    if attempt.number > 0:
        return BUILT_IN["dense"]
    name = profile.name[: MAX_NAME - len(HALF)] + HALF
    return replace(profile, name=name, sparsity=profile.sparsity / 2, late=profile.late / 2)


def best_of(outcomes: Sequence[Outcome]) -> int:
    """The attempt to stand by where none is right: its number.

    One that has text and ended by itself goes before one that is empty or was cut off; among
    those the best average log-probability wins; on a tie the one that saw more frames, then the
    earlier. openai-whisper keeps the last, the one sampled at the highest temperature.
    """

    def merit(number: int) -> tuple[bool, float, int]:
        said, text = outcomes[number].hypothesis, outcomes[number].text
        return said.ended and bool(text.strip()), said.avg_logprob, said.kept_frames

    return max(range(len(outcomes)), key=merit)
