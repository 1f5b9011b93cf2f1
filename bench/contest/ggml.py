"""A checkpoint in the hub's format -> whisper.cpp's ggml file, so that it has the same weights.

Layout by whisper.cpp's loader (`whisper_model_load`): magic, eleven integers, mel filters,
vocabulary, then tensors by OpenAI's names; matrices and convolutions in float16, the rest float32.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from whisper.audio import mel_filters

from service.model.formats.source import Source
from service.model.tokens import make_vocabulary
from tests.checkpoints import openai_name

MAGIC = 0x67676D6C
FLOAT32, FLOAT16 = 0, 1


def write_ggml(source: Source, file: BinaryIO) -> None:
    """Writes the whole model. Raises KeyError for a parameter without a name there."""
    dims = source.dims
    file.write(struct.pack("<I", MAGIC))
    file.write(
        struct.pack(
            "<11i",
            *(dims.vocab_size, dims.num_frames, dims.d_model, dims.encoder_heads),
            *(dims.encoder_layers, dims.max_tokens, dims.d_model, dims.decoder_heads),
            *(dims.decoder_layers, dims.num_mels, FLOAT16),
        )
    )
    filters = mel_filters("cpu", dims.num_mels).numpy()
    file.write(struct.pack("<2i", *filters.shape) + filters.astype("<f4").tobytes())
    vocabulary = make_vocabulary(source.ids, source.settings, dims.vocab_size, dims.num_frames)
    tokens = vocabulary.text_bytes  # control tokens are known there
    file.write(struct.pack("<i", len(tokens)))
    for token in tokens:
        file.write(struct.pack("<i", len(token)) + token)
    for name, tensor in source.tensors():
        if name != "proj_out.weight":
            _write_tensor(file, openai_name(name), tensor.float().numpy())


def _write_tensor(file: BinaryIO, name: str, values: npt.NDArray[np.float32]) -> None:
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        values = values[:, None]
    small = values.ndim > 1 and "positional" not in name and "bias" not in name
    values = values.astype("<f2" if small else "<f4")
    encoded = name.encode()
    file.write(struct.pack("<3i", values.ndim, len(encoded), FLOAT16 if small else FLOAT32))
    file.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)))
    file.write(encoded + values.tobytes())
