"""What the encoder says of its frames is what it did with them, under every kind of profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from service.explain.fates import DROPPED, owners_of, tally
from service.families.whisper import Whisper
from service.model.explain import importance
from service.model.sparsify import keep_positions
from service.profiles import Profile
from service.types import Encoded, Kept
from tests.checkpoints import load_plain
from tests.windows import noise

AUDIO_FRAMES = 300
PROFILES = (
    Profile("dense"),
    Profile("drop", layer=2, sparsity=0.5),
    Profile("near", layer=1, sparsity=0.6, within=5, aggregation="max"),
    Profile("stride", layer=1, sparsity=0.7, selection="stride"),
    Profile("mean", layer=1, sparsity=0.4, pool="mean"),
    Profile("padding", padding=8),
    Profile("padding-mean", layer=1, sparsity=0.5, pool="mean", padding=8),
    Profile("late-drop", late=0.5),
    Profile("late-mean", late=2 / 3, pool="mean"),
    Profile("both", layer=1, sparsity=0.5, pool="mean", late=0.5),
)


@pytest.fixture(scope="module")
def mini(mini_folder: Path) -> Whisper:
    return Whisper(load_plain(str(mini_folder)))


def explained(model: Whisper, profile: Profile) -> tuple[Encoded, Kept]:
    mel_1FT = noise(1)
    mel_1FT[..., 2 * AUDIO_FRAMES :] = mel_1FT.min()
    (encoded,) = model.encode(mel_1FT, [profile], [AUDIO_FRAMES])
    return encoded, model.explain(mel_1FT, profile, encoded)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_each_frame_is_accounted_for_once(mini: Whisper, profile: Profile) -> None:
    encoded, kept = explained(mini, profile)
    assert len(kept.positions) == len(kept.sizes) == len(encoded.states_TD)
    owners = owners_of(kept)
    assert len(owners) == encoded.total_frames
    held, counts = np.unique(owners[owners != DROPPED], return_counts=True)
    assert held.tolist() == list(range(len(kept.sizes)))
    assert counts.tolist() == kept.sizes.tolist()
    told = tally(kept)
    assert told.states == len(encoded.states_TD)
    assert told.alone + told.merged + told.dropped == told.total
    # Nothing is lost where frames are averaged, and nothing averaged where they are dropped.
    assert told.dropped == 0 if profile.pools or profile.is_dense else told.merged == 0
    assert np.isfinite(kept.importance).all()
    assert (kept.importance > 0).all()


def test_the_sizes_are_those_of_the_means_that_the_model_made(mini: Whisper) -> None:
    """The late drop works on states that are there to be compared with: dense's."""
    dense, _ = explained(mini, PROFILES[0])
    for profile in (PROFILES[7], PROFILES[8]):
        encoded, kept = explained(mini, profile)
        for state, first, size in zip(encoded.states_TD, kept.positions, kept.sizes, strict=True):
            mean = dense.states_TD[first : first + size].mean(dim=0)
            torch.testing.assert_close(state, mean, rtol=1e-4, atol=1e-5)


def test_padding_counts_as_many_frames_as_it_weighs(mini: Whisper) -> None:
    encoded, kept = explained(mini, PROFILES[5])
    assert encoded.log_weights_T is not None
    np.testing.assert_allclose(np.log(kept.sizes), encoded.log_weights_T, atol=1e-6)
    assert kept.sizes.max() == 16


@pytest.mark.parametrize("profile", PROFILES[1:3], ids=lambda profile: profile.name)
def test_the_importance_is_what_the_frames_were_chosen_by(mini: Whisper, profile: Profile) -> None:
    _, kept = explained(mini, profile)
    assert kept.chosen_by_it
    assert (kept.layer, kept.aggregation) == (profile.layer, profile.aggregation)
    scores = torch.from_numpy(kept.importance)[None]
    chosen = keep_positions(scores, profile.sparsity, profile.within)
    assert chosen[0].tolist() == kept.positions.tolist()


def test_others_do_not_claim_to_have_chosen_by_it(mini: Whisper) -> None:
    for profile in (PROFILES[0], *PROFILES[3:]):
        _, kept = explained(mini, profile)
        assert not kept.chosen_by_it
        assert kept.layer == (profile.layer if profile.sparsity else 2)


def test_the_importance_of_all_frames_is_one(mini: Whisper) -> None:
    with torch.inference_mode():
        weights = mini.checkpoint.weights.encoder
        for layer in (1, 2):
            received = importance(weights, noise(1), layer, "mean")
            assert float(received.sum()) == pytest.approx(1, abs=1e-4)
