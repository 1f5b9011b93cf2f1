"""The speech detector: equal to the network run chunk by chunk, and right about plain cases."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from service.audio.vad import CHUNK_SAMPLES, advance, led_in, speech_probabilities
from service.types import Samples

from .files import SPEECH_FILE, noise, silence, speech, tone

WEIGHTS = SPEECH_FILE.parents[2] / "service/assets/silero_vad/silero_vad_16k.safetensors"

# The probabilities that Silero's own TorchScript model (silero-vad 6.2.3) gives for
# `recorded_sound`, called chunk by chunk: every eighth, so that a line holds them.
RECORDED: tuple[float, ...] = (
    0.0541,
    0.9990,
    1.0000,
    1.0000,
    1.0000,
    1.0000,
    1.0000,
    0.0396,
    0.0444,
    0.1119,
    0.0046,
    0.0104,
    1.0000,
    0.9999,
    1.0000,
    1.0000,
    1.0000,
    1.0000,
    0.0065,
)


def recorded_sound() -> Samples:
    """Half a second of silence, then speech, noise and a tone."""
    return np.concatenate([silence(0.512), speech(), noise(0.5), tone(0.5), speech()])


def chunk_by_chunk(samples: Samples) -> npt.NDArray[np.float32]:
    """Silero's network as published, one chunk at a time, state carried from each to the next."""
    w = load_file(WEIGHTS)
    cell = torch.nn.LSTMCell(128, 128)
    cell.load_state_dict({k: w[f"lstm.{k}_l0"] for k in cell.state_dict()})
    padded = torch.zeros(64 + -(-len(samples) // 512) * 512)
    padded[64 : 64 + len(samples)] = torch.from_numpy(samples)
    state, found = None, []
    with torch.inference_mode():
        for at in range(64, len(padded), 512):
            x = F.pad(padded[None, None, at - 64 : at + 512], (0, 64), mode="reflect")
            x = F.conv1d(x, w["stft.weight"], stride=128)
            x = (x[:, :129].square() + x[:, 129:].square()).sqrt()
            for i, stride in enumerate((1, 2, 2, 1), start=1):
                x = F.conv1d(x, w[f"conv{i}.weight"], w[f"conv{i}.bias"], stride, padding=1).relu()
            state = cell(x.squeeze(-1), state)
            out = F.conv1d(state[0].relu()[..., None], w["out.weight"], w["out.bias"])
            found.append(out.sigmoid().item())
    return np.array(found, np.float32)


@pytest.mark.parametrize("seconds", [0.001, 0.032, 1.0, 20.0])
def test_equal_to_the_network_run_chunk_by_chunk(seconds: float) -> None:
    """20 s is more than one block: the state is carried over."""
    sound = np.resize(np.concatenate([speech(), noise(1), tone(0.5)]), round(16_000 * seconds))
    lead_in = silence(0.512)
    theirs = chunk_by_chunk(np.concatenate([lead_in, sound]))[16:]
    ours = speech_probabilities(sound)
    assert len(ours) == -(-len(sound) // 512)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_equal_to_what_silero_itself_gives() -> None:
    """The weights, and the network written above, are Silero's."""
    ours = speech_probabilities(recorded_sound()[8_192:])
    np.testing.assert_allclose(ours[::8], RECORDED, atol=1e-3)


@pytest.mark.parametrize("num_chunks", [1, 3, 20])
def test_a_stream_is_heard_as_a_recording_is(num_chunks: int) -> None:
    """However it is cut into calls; and a call changes nothing that it was given."""
    sound, step = recorded_sound(), num_chunks * CHUNK_SAMPLES
    sound = sound[: len(sound) // CHUNK_SAMPLES * CHUNK_SAMPLES]
    state, heard = led_in(), []
    for at in range(0, len(sound), step):
        again = advance(state, sound[at : at + step])[1]
        state, probabilities = advance(state, sound[at : at + step])
        np.testing.assert_array_equal(probabilities, again)
        heard.append(probabilities)
    np.testing.assert_allclose(np.concatenate(heard), speech_probabilities(sound), atol=2e-5)


def test_speech_is_speech() -> None:
    assert np.median(speech_probabilities(speech())) > 0.8


@pytest.mark.parametrize(
    "sound",
    [silence(5), noise(5), noise(5, rms=1e-3), tone(5)],
    ids=["silence", "noise", "hiss", "tone"],
)
def test_other_sounds_are_not(sound: Samples) -> None:
    assert speech_probabilities(sound).max() < 0.5


def test_nothing() -> None:
    assert len(speech_probabilities(silence(0))) == 0
