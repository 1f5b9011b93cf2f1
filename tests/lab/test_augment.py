from __future__ import annotations

import numpy as np

from service.lab.augment import mask


def test_masking_sets_stripes_to_the_mean_and_leaves_the_rest() -> None:
    rng = np.random.default_rng(0)
    mel_FT = rng.standard_normal((80, 900)).astype(np.float32)
    masked = mask(mel_FT, rng)
    hidden = masked != mel_FT
    assert hidden.any()
    assert hidden.mean() < 0.4
    assert (masked[hidden] == mel_FT.mean()).all()
    whole_bins, whole_frames = hidden.all(axis=1), hidden.all(axis=0)
    assert np.array_equal(hidden, whole_bins[:, None] | whole_frames)
    assert whole_bins.sum() <= 20
    assert whole_frames.sum() <= 48
