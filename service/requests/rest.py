"""Where a window's text ends before its speech does, what is left becomes a window of its own.

Whisper may end early, at a pause or in a sentence that the window cuts off. openai-whisper goes on
from the last timestamp; here, where the VAD heard speech after it.
"""

from __future__ import annotations

from dataclasses import replace

from service.requests.coverage import text_end
from service.text.stitch import WindowText
from service.text.timestamps import settle
from service.types import SAMPLE_RATE, Window

LEAST_SPEECH_S = 1.0  # a model's last timestamp may be that much too early with nothing left out
LEAST_PROGRESS_S = 0.5
LEAD_S = 0.3  # kept before the speech that is left: soft beginnings


def rest_of(one: WindowText) -> Window | None:
    """The end of the window that its text leaves out, or None where it leaves out nothing."""
    timed = settle(one.pieces, one.window.duration_s)
    speech = one.window.speech or ()
    if one.is_silent or not one.hypothesis.ended or not timed:
        return None
    end = text_end(speech, timed[-1])
    left = [(max(begin, end), until) for begin, until in speech if until > end]
    if end < LEAST_PROGRESS_S or sum(until - begin for begin, until in left) < LEAST_SPEECH_S:
        return None
    first = round(max(end, left[0][0] - LEAD_S) * SAMPLE_RATE)
    cut_s = first / SAMPLE_RATE
    return replace(
        one.window,
        start_s=one.window.start_s + cut_s,
        samples=one.window.samples[first:],
        speech=tuple((begin - cut_s, until - cut_s) for begin, until in left),
    )
