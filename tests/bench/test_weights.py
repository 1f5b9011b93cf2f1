from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.contest.ggml import FLOAT16, FLOAT32, MAGIC, write_ggml
from bench.contest.ours import decode_exactly
from bench.contest.weights import Weights
from bench.shapes import checkpoint_of, write_shape
from service.errors import ConfigError
from service.families.whisper import Whisper
from service.model.formats.hub_folder import read_hub_folder
from service.profiles import Profile
from tests.checkpoints import openai_name


def read_tensors(file: io.BytesIO) -> dict[str, torch.Tensor]:
    """The rest of a ggml file, as whisper.cpp's loader reads it."""
    found = {}
    while head := file.read(12):
        num_dims, length, kind = struct.unpack("<3i", head)
        shape = struct.unpack(f"<{num_dims}i", file.read(4 * num_dims))
        name = file.read(length).decode()
        dtype = {FLOAT32: "<f4", FLOAT16: "<f2"}[kind]
        count = int(np.prod(shape))
        values = np.frombuffer(file.read(count * np.dtype(dtype).itemsize), dtype)
        found[name] = torch.from_numpy(values.astype(np.float32)).reshape(*reversed(shape))
    return found


def test_whisper_cpp_gets_the_same_weights(mini_folder: Path) -> None:
    source = read_hub_folder(mini_folder)
    file = io.BytesIO()
    write_ggml(source, file)
    file.seek(0)
    magic, *dims, kind = struct.unpack("<I11i", file.read(48))
    assert (magic, kind) == (MAGIC, FLOAT16)
    assert dims == [51865, 1500, 128, 2, 2, 448, 128, 2, 2, 80]
    mels, bins = struct.unpack("<2i", file.read(8))
    filters = np.frombuffer(file.read(4 * mels * bins), "<f4").reshape(mels, bins)
    assert filters.shape == (80, 201)
    assert filters.max() > 0
    (num_tokens,) = struct.unpack("<i", file.read(4))
    words = [file.read(struct.unpack("<i", file.read(4))[0]) for _ in range(num_tokens)]
    assert words[:2] == [b"!", b'"']
    assert len(words) == source.ids["<|endoftext|>"]
    tensors = read_tensors(file)
    for name, tensor in source.tensors():
        got = tensors.pop(openai_name(name).removeprefix("model."))
        torch.testing.assert_close(got.squeeze(), tensor.squeeze(), rtol=1e-3, atol=1e-5)
    assert not tensors


def test_weights_are_written_once_and_again_when_they_change(
    mini_folder: Path, tmp_path: Path
) -> None:
    said: list[str] = []

    def weights(model: Path) -> Weights:
        return Weights(str(model), tmp_path / "work", tmp_path / "no-python", said.append)

    first = weights(mini_folder).path("pt")
    assert weights(mini_folder).path("pt") == first
    assert said == ["writing the weights for model.pt"]
    other = write_shape(tmp_path / mini_folder.name, "mini")
    assert weights(other).path("pt") != first
    with pytest.raises(ChildProcessError, match=r"ct2: .*scripts/peers makes"):
        weights(mini_folder).path("ct2")


def test_random_weights_go_on_until_the_limit() -> None:
    checkpoint = checkpoint_of("mini", "cpu", "float32")
    assert checkpoint.weights.dims.encoder_layers == 2
    clips = [np.random.default_rng(n).normal(0, 0.1, 9000).astype(np.float32) for n in (0, 1)]
    # It raises where a window ends before.
    texts = decode_exactly(Whisper(checkpoint), clips, "en", Profile("dense"), 40)
    assert len(texts) == 2


def test_a_shape_that_nobody_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"shape 'huge'.*turbo"):
        write_shape(tmp_path / "x", "huge")
    assert list(tmp_path.iterdir()) == []
