"""Windows that nobody sent, through the whole model: they warm it up, tell a bad window from a bad
device, and a lane that works from one that does not."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from service.engine.features import features_of
from service.engine.lane import AtOnce, Lane
from service.model.protocol import SpeechModel
from service.profiles import BUILT_IN, Profile
from service.types import SAMPLE_RATE, DecodeOptions, Samples

# Enough for the prompt and some tokens after it; a model may speak of silence without end.
PROBE_STEPS = 4
NEAR = 0.05  # of states, which are about 1; float16 and bfloat16 round to 0.01

log = logging.getLogger(__name__)


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


def tried(lane: Lane, model: SpeechModel) -> Lane:
    """The lane, if a window of noise comes from it as it does at once; else it goes at once."""
    at_once = AtOnce()
    if isinstance(lane, AtOnce):
        return lane
    noise: Samples = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)

    def states_by(way: Lane) -> torch.Tensor:
        pending = way.begin(
            lambda: features_of([noise], model.info),
            lambda made: model.encode(made.values_BFT, [BUILT_IN["dense"]], made.sounding),
        )
        return pending.result().windows[0].states_TD.float()

    try:
        if torch.allclose(states_by(lane), states_by(at_once), atol=NEAR, rtol=NEAR):
            return lane
        reason = "its states are others"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    log.warning("encoding goes at once, not beside the steps: %s", reason)
    return at_once
