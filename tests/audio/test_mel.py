"""Log-mel against the features that checkpoints were trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import whisper.audio
from transformers import WhisperFeatureExtractor

from service.audio.mel import log_mel
from service.types import WINDOW_SAMPLES, Samples

from .files import noise, silence, speech, tone

SOUNDS = {
    "speech": speech(),
    "noise": noise(3),
    "tone": tone(2),
    "silence": silence(1),
    "nothing": silence(0),
    "one sample": np.ones(1, np.float32),
    "a hop less one": noise(0.01)[:159],
    "29.99 s": noise(29.99),
    "just under 30 s": noise(30)[:-199],
    "30 s": noise(30),
    "longer": noise(31),
    "faint, then loud": np.concatenate([noise(1, rms=1e-4), noise(1, rms=0.5)]),
}


@pytest.mark.parametrize("num_mels", [80, 128])
@pytest.mark.parametrize("name", SOUNDS)
def test_equal_to_transformers_and_whisper(name: str, num_mels: int) -> None:
    sound = SOUNDS[name]
    mel_BFT = log_mel([sound], num_mels)
    assert mel_BFT.shape == (1, num_mels, 3000)
    assert mel_BFT.dtype == torch.float32
    extractor = WhisperFeatureExtractor(feature_size=num_mels)
    theirs = extractor(sound, sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(mel_BFT, theirs, atol=1e-4, rtol=0)
    padded = whisper.audio.pad_or_trim(torch.from_numpy(sound), WINDOW_SAMPLES)
    openai = whisper.audio.log_mel_spectrogram(padded, num_mels)
    torch.testing.assert_close(mel_BFT[0], openai, atol=1e-4, rtol=0)


@pytest.mark.parametrize("num_mels", [80, 128])
def test_a_batch_equals_its_members_alone(num_mels: int) -> None:
    sounds: list[Samples] = list(SOUNDS.values())
    alone = torch.cat([log_mel([sound], num_mels) for sound in sounds])
    torch.testing.assert_close(log_mel(sounds, num_mels), alone, atol=1e-5, rtol=0)


def test_no_windows() -> None:
    assert log_mel([], 80).shape == (0, 80, 3000)


def test_does_not_change_its_input() -> None:
    sound = speech()
    before = sound.copy()
    log_mel([sound], 80)
    np.testing.assert_array_equal(sound, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_equals_on_the_cpu() -> None:
    sounds = [speech(), noise(30), tone(2)]
    on_gpu = log_mel(sounds, 80, "cuda")
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), log_mel(sounds, 80), atol=1e-4, rtol=0)
