"""Which windows nobody spoke in: what a model says of them is not used."""

from __future__ import annotations

from service.text.timestamps import compression_ratio
from service.types import Hypothesis, Thresholds

# openai-whisper's (`transcribe`: logprob_threshold), where neither request nor model says another.
MIN_AVG_LOGPROB = -1.0
# Where the VAD heard nobody, the model must be all but certain that somebody speaks. On eight kinds
# of noise and on silence base is not: it loops, or is below this likelihood (-0.46 at best), or
# above this probability of no speech.
UNHEARD_AVG_LOGPROB = -0.25
UNHEARD_NO_SPEECH = 0.3


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
