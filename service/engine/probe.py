"""A silent window through the whole model: warms it up, tells a bad window from a bad device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from service.engine.features import features_of
from service.model.protocol import SpeechModel
from service.profiles import Profile
from service.types import SAMPLE_RATE, DecodeOptions

# Enough for the prompt and some tokens after it; a model may speak of silence without end.
PROBE_STEPS = 4


def probe(model: SpeechModel, profile: Profile) -> None:
    """Encodes a silent window by the profile and decodes its first tokens.

    Raises whatever the model raises: its message is free of anybody's audio or text.
    """
    silence = np.zeros(SAMPLE_RATE, dtype=np.float32)
    features = features_of([silence], model.info)
    decode = model.new_decode_batch()
    # As if all of it were the recording: nothing is spared.
    decode.join([0], model.encode(features.values_BFT, [profile]), [DecodeOptions()])
    for _ in range(PROBE_STEPS):
        if not len(decode):
            return
        decode.step()


def warm_up(model: SpeechModel, profiles: Sequence[Profile]) -> None:
    """Probes the profiles, so that no request is the first to pay for kernels and allocations.

    On a CPU the first of them alone. It says that the model works, and what it does for the others
    there is little: 0.06 s off the first request, for a second of a start each (whisper-base).
    """
    if model.info.device == "cpu":
        profiles = profiles[:1]
    for profile in profiles:
        probe(model, profile)
