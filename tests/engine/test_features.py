"""What a model reads of windows: a log-mel that is filled up, or samples as they are."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from service.audio.mel import log_mel
from service.engine.features import features_of
from service.families.fake import FakeModel
from service.profiles import Profile
from service.types import DecodeOptions, Job, Samples, Window
from tests.ctc_checkpoints import load_plain_ctc, write_ctc
from tests.harness import running
from tests.model.ctc.sounds import encode_one, said, sounds

LENGTHS = (16_000, 40_001, 24_000)


@pytest.fixture(scope="module")
def windows() -> list[Samples]:
    draws = np.random.default_rng(0)
    return [draws.standard_normal(n).astype(np.float32) for n in (16_000, 40_001, 480_100)]


def test_whisper_reads_padded_windows(windows: list[Samples]) -> None:
    info = FakeModel().info
    features = features_of(windows, info)
    assert torch.equal(features.values_BFT, log_mel(windows, info.num_mels))
    assert features.sounding == (50, 125, 1500)
    assert features.of(1).shape == (1, info.num_mels, 3000)
    assert torch.equal(features.of(1)[0], features.values_BFT[1])


def test_others_read_samples(windows: list[Samples]) -> None:
    features = features_of(windows, replace(FakeModel().info, features="waveform"))
    assert features.values_BFT.shape == (3, 1, 480_000)
    assert features.sounding == (16_000, 40_001, 480_000)
    for number, window in enumerate(windows):
        own = features.of(number)
        assert own.shape == (1, 1, features.sounding[number])
        assert torch.equal(own[0, 0], torch.from_numpy(window[:480_000]))
    assert not features.values_BFT[0, 0, 16_000:].any()


def test_windows_of_a_batch_do_not_see_each_others_zeros(tmp_path: Path) -> None:
    model = load_plain_ctc(write_ctc(tmp_path / "model"))
    waves = sounds(*LENGTHS)
    windows = [Window(0, 0.0, wave[0, :n].numpy()) for wave, n in zip(waves, LENGTHS, strict=True)]
    deadline = time.monotonic() + 60
    with running(model, batch_wait_ms=200) as service:
        jobs = [
            Job(str(number), window, Profile("dense"), DecodeOptions(), deadline)
            for number, window in enumerate(windows)
        ]
        service.engine.submit(jobs)
        together = [job.reply.result(60).hypothesis for job in jobs]
        assert service.sample("winnow_batch_windows_count") == 1
    alone = [
        said(model, [encode_one(model, wave[0, :n], Profile("dense"))])[0]
        for wave, n in zip(waves, LENGTHS, strict=True)
    ]
    assert together == alone
    assert [one.total_frames for one in together] == [49, 124, 74]
