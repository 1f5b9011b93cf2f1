"""What to do with a hypothesis that is not worth keeping: the next attempt, or none.

A sparse profile is tried again with every frame; what is still not right is the decoder's doing,
and is sampled at rising temperatures, as openai-whisper does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from service.profiles import BUILT_IN, Profile
from service.requests.coverage import Coverage, begins_again
from service.requests.guard import DOUBT, EMPTY, SKIPPED, lost_reason, retry_reason
from service.text.timestamps import compression_ratio
from service.types import DecodeOptions, Hypothesis, Thresholds

# Where one other draw does not help, base's further ones only cost: in noise as loud as the speech
# all five were as doubtful, and the likeliest had more errors than the first.
SAMPLED_ONCE = (SKIPPED, DOUBT)
_MUCH_S = 2.0  # of speech without text, in which attempts differ enough to choose by it


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a window is decoded. `number` counts from 0."""

    number: int
    profile: Profile
    options: DecodeOptions


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt came to. `loud`: speech can be heard in the window; `silent`: the text is
    not used (`silence.is_silent`); `coverage`: of what was spoken, by the text."""

    hypothesis: Hypothesis
    text: str
    loud: bool
    silent: bool = False
    coverage: Coverage = field(default_factory=Coverage)


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
) -> Verdict:
    """Whether what an attempt came to stands, or else what to try next.

    A window has at most two attempts more than there are `temperatures` and one. What is not
    right with every frame is tried without its prompt before it is sampled: Whisper may repeat a
    prompt, or say nothing after it. Empty text is never sampled: with every frame and no prompt
    it is the model's answer. A doubtful text, or one that skips, is sampled once.
    """
    if attempt.options.language_only or (outcome.silent and not attempt.options.prompt):
        return Verdict()
    reason = _reason(attempt, outcome, thresholds)
    if reason is None:
        return Verdict()
    number = attempt.number + 1
    if not attempt.profile.is_dense:
        return Verdict(reason, Attempt(number, BUILT_IN["dense"], attempt.options))
    if attempt.options.prompt:
        options = replace(attempt.options, prompt=())
        return Verdict(reason, Attempt(number, attempt.profile, options))
    higher = [t for t in temperatures if t > attempt.options.temperature]
    sampled = attempt.options.temperature > min(temperatures, default=0.0)
    if reason == EMPTY or not higher or (reason in SAMPLED_ONCE and sampled):
        return Verdict(reason)
    options = replace(attempt.options, temperature=min(higher))
    return Verdict(reason, Attempt(number, attempt.profile, options))


def _reason(attempt: Attempt, outcome: Outcome, thresholds: Thresholds) -> str | None:
    said, text = outcome.hypothesis, outcome.text
    # A prompt may be why there is no text: it sways the model's ear for silence too.
    if attempt.options.prompt and (outcome.silent or (outcome.loud and not text.strip())):
        return EMPTY
    return retry_reason(said, text, outcome.loud, thresholds) or lost_reason(
        outcome.coverage, text, sparse=not attempt.profile.is_dense
    )


def best_of(outcomes: Sequence[Outcome], thresholds: Thresholds) -> int:
    """The attempt to stand by where none is right: its number.

    One that has text and ended by itself goes before one that is empty or was cut off; one that
    does not repeat itself before one that does; one that leaves out less of the speech before one
    that leaves out more. Among those the best average log-probability wins; on a tie the one that
    saw more frames, then the earlier. openai-whisper keeps the last, the one sampled at the
    highest temperature.
    """

    def merit(number: int) -> tuple[bool, bool, int, float, int]:
        said, text = outcomes[number].hypothesis, outcomes[number].text
        coverage = outcomes[number].coverage
        repeats = compression_ratio(text.strip()) > thresholds.compression_ratio
        return (
            said.ended and bool(text.strip()),
            not repeats and not begins_again(text),
            -int((coverage.skipped_s + coverage.left_s) // _MUCH_S),
            said.avg_logprob,
            said.kept_frames,
        )

    return max(range(len(outcomes)), key=merit)
