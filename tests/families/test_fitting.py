"""Which profiles a loaded model has."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import replace

import pytest

from service.errors import CheckpointError, ConfigError
from service.families.fake import FakeModel
from service.families.fitting import all_fitted, fitted
from service.model.protocol import ModelInfo
from service.profiles import BUILT_IN, Profile

DEEP = Profile("deep", layer=9, sparsity=0.5)
FEW = Profile("few", bits=4)


class Shallow(FakeModel):
    """Two layers, which `balanced` is too deep for."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, num_encoder_layers=2)


class Hearing(FakeModel):
    """As if it read samples."""

    @property
    def info(self) -> ModelInfo:
        return replace(super().info, features="waveform")


def test_a_built_in_profile_that_is_too_deep_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = all_fitted(Shallow(), BUILT_IN, (), refuses=True)
    assert list(found) == [name for name in BUILT_IN if name != "balanced"]
    assert "fake does without a profile: profile balanced: layer 3" in caplog.text


@pytest.mark.parametrize("profile", [DEEP, FEW, replace(BUILT_IN["balanced"], sparsity=0.4)])
def test_one_that_somebody_made_is_refused(profile: Profile) -> None:
    profiles = {**BUILT_IN, profile.name: profile}
    with pytest.raises(ConfigError, match=f"profile {profile.name}: "):
        all_fitted(Shallow(), profiles, (), refuses=True)
    rest = all_fitted(Shallow(), profiles, (), refuses=False)
    assert list(rest) == [name for name in BUILT_IN if name != "balanced"]


def test_who_reads_samples_has_no_padding_and_no_reach() -> None:
    clips = Profile("near", 1, 0.5, pool="mean", padding=8, reach=50)
    assert fitted(Hearing(), clips, ()) == Profile("near", 1, 0.5, pool="mean")
    assert fitted(Hearing(), BUILT_IN["clips"], ()).is_dense
    assert fitted(FakeModel(), clips, ()) == clips


def test_damaged_weights_of_a_profile_are_not_everybodys(caplog: pytest.LogCaptureFixture) -> None:
    class Damaged(FakeModel):
        def prepare(self, profiles: Iterable[Profile], adapters: Collection[str] = ()) -> None:
            if any(profile.is_adapted for profile in profiles):
                raise CheckpointError("gates.json cannot be read")

    profiles = {**BUILT_IN, "few": FEW}
    with pytest.raises(CheckpointError):
        all_fitted(Damaged(), profiles, (), refuses=True)
    assert list(all_fitted(Damaged(), profiles, (), refuses=False)) == list(BUILT_IN)
    assert "gates.json cannot be read" in caplog.text
