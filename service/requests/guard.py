"""Which hypotheses are not worth keeping: Whisper's rules, and what sparsity is known to break."""

from __future__ import annotations

from service.requests.coverage import Coverage, begins_again
from service.text.silence import MIN_AVG_LOGPROB
from service.text.timestamps import compression_ratio
from service.types import Hypothesis, Thresholds

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


def retry_reason(
    hypothesis: Hypothesis,
    text: str,
    loud: bool = False,
    thresholds: Thresholds | None = None,
) -> str | None:
    """Why a window should be decoded again, or None if it is fine: Whisper's rules.

    High sparsity is known to give repetitive, endless or no text (arXiv 2506.15912). No text is a
    reason where the window is `loud` and the model did not say that it hears no speech.
    Silent windows (`text.silence`) are the caller's: their text is not used.
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
