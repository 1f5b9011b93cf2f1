"""Which hypotheses are not worth keeping: Whisper's rules for silence and for repetition."""

from __future__ import annotations

from service.text.timestamps import compression_ratio
from service.types import Hypothesis

# openai-whisper's thresholds (`transcribe`: no_speech_threshold, logprob_threshold,
# compression_ratio_threshold).
MAX_NO_SPEECH_PROB = 0.6
MIN_AVG_LOGPROB = -1.0
MAX_COMPRESSION_RATIO = 2.4

REPETITION = "repetition"
ENDLESS = "endless"


def is_silent(hypothesis: Hypothesis) -> bool:
    """True where the model heard no speech and is not sure of its words either."""
    return (
        hypothesis.no_speech_prob > MAX_NO_SPEECH_PROB and hypothesis.avg_logprob < MIN_AVG_LOGPROB
    )


def retry_reason(hypothesis: Hypothesis, text: str) -> str | None:
    """Why a window should be decoded again with every frame, or None if it is fine.

    High sparsity is known to give repetitive or endless text (arXiv 2506.15912). A silent window
    is fine: its text is not used.
    """
    if is_silent(hypothesis):
        return None
    if compression_ratio(text.strip()) > MAX_COMPRESSION_RATIO:
        return REPETITION
    if not hypothesis.ended:
        return ENDLESS
    return None
