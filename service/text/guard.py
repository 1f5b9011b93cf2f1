"""Which hypotheses are not worth keeping: Whisper's rules, and what sparsity is known to break."""

from __future__ import annotations

from service.text.coverage import Coverage, begins_again
from service.text.timestamps import compression_ratio
from service.types import Hypothesis, Thresholds

# openai-whisper's (`transcribe`: logprob_threshold), where neither request nor model says another.
MIN_AVG_LOGPROB = -1.0
# Where the VAD heard nobody, the model must be all but certain that somebody speaks. On eight kinds
# of noise and on silence base is not: it loops, or is below this likelihood (-0.46 at best), or
# above this probability of no speech.
UNHEARD_AVG_LOGPROB = -0.25
UNHEARD_NO_SPEECH = 0.3
# Seconds of speech passed over that are a reason. Last timestamps come a little early (`rest`).
SKIPPED_S = 2.0
# Text that ends so much before its speech is gone on with where every frame was seen; else the
# frames that were dropped are the likelier cause.
BROKEN_OFF_S = 8.0

REPETITION = "repetition"
ENDLESS = "endless"
EMPTY = "empty"
DOUBT = "doubt"
SKIPPED = "skipped"
RESTART = "restart"
UNFINISHED = "unfinished"  # decoded on from where the text ends (`rest`)


def is_silent(
    hypothesis: Hypothesis,
    thresholds: Thresholds | None = None,
    text: str = "",
    heard: bool = True,
) -> bool:
    """True where the model heard no speech and is not sure of its words either.

    `heard`: False where the VAD listened and heard nobody. Then less doubt is enough, unless the
    request takes no probability of no speech for silence (1).
    """
    limits = thresholds or Thresholds()
    least = MIN_AVG_LOGPROB if limits.logprob is None else limits.logprob
    if hypothesis.no_speech_prob > limits.no_speech and hypothesis.avg_logprob < least:
        return True
    if heard or limits.no_speech >= 1:
        return False
    return (
        not hypothesis.ended
        or hypothesis.avg_logprob < UNHEARD_AVG_LOGPROB
        or hypothesis.no_speech_prob > UNHEARD_NO_SPEECH
        or compression_ratio(text.strip()) > limits.compression_ratio
    )


def retry_reason(
    hypothesis: Hypothesis,
    text: str,
    loud: bool = False,
    thresholds: Thresholds | None = None,
) -> str | None:
    """Why a window should be decoded again, or None if it is fine: Whisper's rules.

    High sparsity is known to give repetitive, endless or no text (arXiv 2506.15912). No text is a
    reason where the window is `loud` and the model did not say that it hears no speech.
    Silent windows (`is_silent`) are the caller's: their text is not used.
    """
    limits = thresholds or Thresholds()
    if compression_ratio(text.strip()) > limits.compression_ratio:
        return REPETITION
    if not hypothesis.ended:
        return ENDLESS
    if not text.strip():
        return EMPTY if loud and hypothesis.no_speech_prob <= limits.no_speech else None
    least = MIN_AVG_LOGPROB if limits.logprob is None else limits.logprob
    return DOUBT if hypothesis.avg_logprob < least else None


def lost_reason(coverage: Coverage, text: str, sparse: bool) -> str | None:
    """Why a text that keeps to Whisper's rules should be decoded again all the same, or None.

    It passes over speech that the VAD heard; and, where frames were dropped (`sparse`), it breaks
    off long before the speech ends, or begins again after its end.
    """
    if coverage.skipped_s >= SKIPPED_S or (sparse and coverage.left_s >= BROKEN_OFF_S):
        return SKIPPED
    return RESTART if sparse and begins_again(text) else None
