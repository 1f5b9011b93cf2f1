"""Which of a service's profiles a loaded model can have, made ready to run."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

from service.errors import CheckpointError, ConfigError
from service.model.protocol import SpeechModel
from service.profiles import BUILT_IN, Profile, check_depth

log = logging.getLogger(__name__)


def fitted(model: SpeechModel, profile: Profile, adapters: Collection[str]) -> Profile:
    """The profile as the model has it, ready to run. `adapters`: folders of other weights.

    Raises ConfigError for one that the model cannot have, and CheckpointError for weights that
    cannot be read.
    """
    check_depth({profile.name: profile}, model.info.num_encoder_layers)
    model.prepare([profile], adapters)
    if model.info.features == "waveform":  # nothing is padded, and every layer hears all of it
        return replace(profile, padding=0, reach=0)
    return profile


def all_fitted(
    model: SpeechModel,
    profiles: Mapping[str, Profile],
    adapters: Collection[str],
    *,
    refuses: bool,
) -> dict[str, Profile]:
    """Those of the profiles that the model can have. Left out, with a warning, is a built-in one
    that it cannot have; any other is refused, if it `refuses`, by what `fitted` raises."""
    there = {}
    for name, profile in profiles.items():
        try:
            there[name] = fitted(model, profile, adapters)
        except (ConfigError, CheckpointError) as error:
            if name == "dense" or (refuses and profile != BUILT_IN.get(name)):
                raise
            log.warning("%s does without a profile: %s", model.info.name, error)
    return there
