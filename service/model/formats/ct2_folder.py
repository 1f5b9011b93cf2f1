"""A CTranslate2 folder, as faster-whisper uses it: model.bin, config.json, vocabulary."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from torch import Tensor

from service.errors import CheckpointError
from service.model.formats.bpe import tokenizer_from_ids
from service.model.formats.ct2_binary import Ct2Binary
from service.model.formats.source import Source
from service.model.tokens import read_ids, read_json, read_tokenizer
from service.model.weights import Dims

BINARY = "model.bin"
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")

# Vocabularies of as many tokens or more know languages (openai-whisper, `Whisper.is_multilingual`).
MULTILINGUAL_SIZE = 51865
# What CTranslate2 and openai-whisper take where nothing is said: a first timestamp up to 1 s.
MAX_INITIAL_TIMESTAMP_INDEX = 50
HEAD_SIZE = 64

_SETTINGS = {
    "alignment_heads": "alignment_heads",
    "suppress_ids": "suppress_tokens",
    "suppress_ids_begin": "begin_suppress_tokens",
}


def read_ct2_folder(folder: Path) -> Source:
    """Raises CheckpointError for a model that is not Whisper, incomplete or corrupt."""
    return read_ct2(folder, map_file(folder / BINARY), str(folder / BINARY))


def read_ct2(folder: Path, data: memoryview, place: str) -> Source:
    """A model whose `model.bin` is `data`, and whose small files are in `folder`."""
    binary = Ct2Binary(data, place)
    dims = _dims(binary)
    ids, tokenizer = read_words(folder)
    return Source(
        place=place,
        said_by="the file",
        dims=dims,
        ids=ids,
        settings=_settings(folder, dims, ids),
        tokenizer=tokenizer,
        tensors=partial(_tensors, binary, dims),
    )


def map_file(path: Path) -> memoryview:
    """The file's bytes, read when they are looked at, as memory that can be written.

    Raises CheckpointError where it is missing or empty.
    """
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def _dims(binary: Ct2Binary) -> Dims:
    frames, d_model = _matrix(binary, "encoder/position_encodings/encodings")
    max_tokens, _ = _matrix(binary, "decoder/position_encodings/encodings")
    vocab_size, _ = _matrix(binary, "decoder/embeddings/weight")
    conv = binary.shape("encoder/conv1/weight")
    return Dims(
        num_mels=conv[1] if len(conv) == 3 else 0,
        num_frames=frames,
        d_model=d_model,
        encoder_heads=_heads(binary, "encoder", d_model),
        decoder_heads=_heads(binary, "decoder", d_model),
        encoder_layers=_layers(binary, "encoder"),
        decoder_layers=_layers(binary, "decoder"),
        vocab_size=vocab_size,
        max_tokens=max_tokens,
    )


def _matrix(binary: Ct2Binary, name: str) -> tuple[int, int]:
    shape = binary.shape(name)
    if len(shape) != 2:
        raise binary.error(f"{name} is {shape}: a matrix is expected")
    return shape[0], shape[1]


def _heads(binary: Ct2Binary, side: str, d_model: int) -> int:
    return binary.scalar(f"{side}/num_heads") or d_model // HEAD_SIZE


def _layers(binary: Ct2Binary, side: str) -> int:
    """By the highest number: of a layer in between that is missing, its variables are missed."""
    found = (re.match(rf"{side}/layer_(\d{{1,4}})/", name) for name in binary.variables)
    return max((int(layer[1]) + 1 for layer in found if layer), default=0)


def read_words(folder: Path) -> tuple[dict[str, int], Tokenizer]:
    """Token strings to ids, and what splits text: of tokenizer.json, or of the list of tokens.

    Raises CheckpointError for files that are missing, corrupt or not Whisper's.
    """
    if (folder / "tokenizer.json").exists():
        tokenizer = read_tokenizer(folder)
        if tokenizer is not None:
            return read_ids(folder), tokenizer
    ids = {token: number for number, token in enumerate(list_tokens(folder))}
    try:
        return ids, tokenizer_from_ids(ids)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def list_tokens(folder: Path) -> list[str]:
    """The tokens in the order of their ids."""
    for name in VOCABULARIES:
        path = folder / name
        if not path.exists():
            continue
        try:
            text = path.read_text(encoding="utf-8")
            tokens = (
                json.loads(text) if path.suffix == ".json" else text.removesuffix("\n").split("\n")
            )
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise CheckpointError(f"{path} must hold a list of tokens")
        return tokens
    raise CheckpointError(f"{folder} has no tokenizer.json, {' or '.join(VOCABULARIES)}")


def _settings(folder: Path, dims: Dims, ids: Mapping[str, int]) -> dict[str, Any]:
    """config.json, where there is one, by transformers' names."""
    path = folder / "config.json"
    config = read_json(path) if path.exists() else {}
    multilingual = dims.vocab_size >= MULTILINGUAL_SIZE
    settings: dict[str, Any] = {
        ours: config[theirs] for theirs, ours in _SETTINGS.items() if config.get(theirs)
    }
    settings["is_multilingual"] = multilingual
    settings["max_initial_timestamp_index"] = MAX_INITIAL_TIMESTAMP_INDEX
    if multilingual and config.get("lang_ids"):
        known = config["lang_ids"]
        if not isinstance(known, list):
            raise CheckpointError(f"{path}: lang_ids must be a list of tokens")
        settings["lang_to_id"] = {token: n for token, n in ids.items() if n in known}
    return settings


def _tensors(binary: Ct2Binary, dims: Dims) -> Iterator[tuple[str, Tensor]]:
    for side in ("encoder", "decoder"):
        positions = binary.values(f"{side}/position_encodings/encodings")
        yield f"model.{side}.embed_positions.weight", positions
        yield from _norm(binary, f"{side}/layer_norm", f"model.{side}.layer_norm")
    yield "model.decoder.embed_tokens.weight", binary.values("decoder/embeddings/weight")
    for conv in ("conv1", "conv2"):
        yield from _linear(binary, f"encoder/{conv}", (f"model.encoder.{conv}",))
    for side, count in (("encoder", dims.encoder_layers), ("decoder", dims.decoder_layers)):
        for layer in range(count):
            theirs, ours = f"{side}/layer_{layer}", f"model.{side}.layers.{layer}"
            yield from _layer(binary, theirs, ours, cross=side == "decoder")


def _layer(
    binary: Ct2Binary, theirs: str, ours: str, *, cross: bool
) -> Iterator[tuple[str, Tensor]]:
    attention = f"{theirs}/self_attention"
    yield from _norm(binary, f"{attention}/layer_norm", f"{ours}.self_attn_layer_norm")
    parts = tuple(f"{ours}.self_attn.{part}_proj" for part in "qkv")
    yield from _linear(binary, f"{attention}/linear_0", parts)
    yield from _linear(binary, f"{attention}/linear_1", (f"{ours}.self_attn.out_proj",))
    if cross:
        attention, name = f"{theirs}/attention", f"{ours}.encoder_attn"
        yield from _norm(binary, f"{attention}/layer_norm", f"{name}_layer_norm")
        yield from _linear(binary, f"{attention}/linear_0", (f"{name}.q_proj",))
        yield from _linear(binary, f"{attention}/linear_1", (f"{name}.k_proj", f"{name}.v_proj"))
        yield from _linear(binary, f"{attention}/linear_2", (f"{name}.out_proj",))
    yield from _norm(binary, f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
    yield from _linear(binary, f"{theirs}/ffn/linear_0", (f"{ours}.fc1",))
    yield from _linear(binary, f"{theirs}/ffn/linear_1", (f"{ours}.fc2",))


def _norm(binary: Ct2Binary, theirs: str, ours: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{ours}.weight", binary.values(f"{theirs}/gamma")
    yield f"{ours}.bias", binary.values(f"{theirs}/beta")


def _linear(binary: Ct2Binary, theirs: str, ours: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """One layer, or several that are stored as one, above each other.

    A key has no bias in Whisper; CTranslate2 fills its place with zeros.
    """
    weight, bias = binary.values(f"{theirs}/weight"), binary.values(f"{theirs}/bias")
    rows, left_over = divmod(weight.shape[0] if weight.dim() else 0, len(ours))
    if not rows or left_over or bias.shape != weight.shape[:1]:
        raise binary.error(
            f"{theirs} is {tuple(weight.shape)} with a bias of {tuple(bias.shape)}: "
            f"not {len(ours)} layers"
        )
    for n, name in enumerate(ours):
        yield f"{name}.weight", weight[n * rows : (n + 1) * rows]
        if not name.endswith("k_proj"):
            yield f"{name}.bias", bias[n * rows : (n + 1) * rows]
