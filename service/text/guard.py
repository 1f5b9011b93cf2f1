"""Which hypotheses are not worth keeping: Whisper's rules, and what sparsity is known to break."""

from __future__ import annotations

from service.text.timestamps import compression_ratio
from service.types import Hypothesis, Thresholds

# openai-whisper's (`transcribe`: logprob_threshold), where neither request nor model says another.
MIN_AVG_LOGPROB = -1.0

REPETITION = "repetition"
ENDLESS = "endless"
EMPTY = "empty"
DOUBT = "doubt"
UNFINISHED = "unfinished"  # decoded on from where the text ends (`rest`)


def is_silent(hypothesis: Hypothesis, thresholds: Thresholds | None = None) -> bool:
    """True where the model heard no speech and is not sure of its words either."""
    limits = thresholds or Thresholds()
    least = MIN_AVG_LOGPROB if limits.logprob is None else limits.logprob
    return hypothesis.no_speech_prob > limits.no_speech and hypothesis.avg_logprob < least


def retry_reason(
    hypothesis: Hypothesis,
    text: str,
    loud: bool = False,
    thresholds: Thresholds | None = None,
    doubt_below: float = MIN_AVG_LOGPROB,
) -> str | None:
    """Why a window should be decoded again, or None if it is fine.

    High sparsity is known to give repetitive, endless or no text (arXiv 2506.15912). A silent
    window is fine: its text is not used. No text is a reason where the window is `loud` and the
    model did not say that it hears no speech. `doubt_below` holds where the request gives no
    threshold of average log-probability.
    """
    limits = thresholds or Thresholds()
    if is_silent(hypothesis, limits):
        return None
    if compression_ratio(text.strip()) > limits.compression_ratio:
        return REPETITION
    if not hypothesis.ended:
        return ENDLESS
    if not text.strip():
        return EMPTY if loud and hypothesis.no_speech_prob <= limits.no_speech else None
    least = doubt_below if limits.logprob is None else limits.logprob
    return DOUBT if hypothesis.avg_logprob < least else None
