"""OpenAI's own checkpoints: one `.pt` file with `dims` and `model_state_dict`.

The file has no vocabulary. All of OpenAI's models share two, and large-v3's has one language more,
so that it is taken from files beside the `.pt`, or from any model of the kind that can be had.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from service.errors import CheckpointError
from service.model.formats.ct2_folder import VOCABULARIES, read_words
from service.model.formats.hub_folder import read_pickle, tensors_of
from service.model.formats.openai_facts import Words, settings_of
from service.model.formats.source import Source
from service.model.weights import Dims

_DIMS = {
    "num_mels": "n_mels",
    "num_frames": "n_audio_ctx",
    "d_model": "n_audio_state",
    "encoder_heads": "n_audio_head",
    "decoder_heads": "n_text_head",
    "encoder_layers": "n_audio_layer",
    "decoder_layers": "n_text_layer",
    "vocab_size": "n_vocab",
    "max_tokens": "n_text_ctx",
}
# transformers' `convert_openai_to_hf.py` has the same table.
_NAMES = (
    (r"\bblocks\b", "layers"),
    (r"\bcross_attn_ln\b", "encoder_attn_layer_norm"),
    (r"\battn_ln\b", "self_attn_layer_norm"),
    (r"\bmlp_ln\b", "final_layer_norm"),
    (r"\bcross_attn\b", "encoder_attn"),
    (r"\battn\b", "self_attn"),
    (r"\bquery\b", "q_proj"),
    (r"\bkey\b", "k_proj"),
    (r"\bvalue\b", "v_proj"),
    (r"\bout\b", "out_proj"),
    (r"\bmlp\.0\b", "fc1"),
    (r"\bmlp\.2\b", "fc2"),
    (r"\b(ln_post|ln)\b", "layer_norm"),
    (r"\bpositional_embedding\b", "embed_positions.weight"),
    (r"\btoken_embedding\b", "embed_tokens"),
)


def read_openai_file(path: Path, other: Callable[[int], Words]) -> Source:
    """`other` gives a vocabulary of as many entries, where none is beside the file.

    Raises CheckpointError for a file that is damaged or another, and what `other` raises.
    """
    content = _load(path)
    dims = _dims(content, path)
    ids, tokenizer = _beside(path, dims) or other(dims.vocab_size)
    try:
        settings = settings_of(dims, ids, tokenizer, path.stem)
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{path}: the vocabulary beside it is not Whisper's") from error
    return Source(
        place=str(path),
        said_by="its dims",
        dims=dims,
        ids=ids,
        settings=settings,
        tokenizer=tokenizer,
        tensors=partial(_tensors, tensors_of(content["model_state_dict"], path)),
    )


def _beside(path: Path, dims: Dims) -> Words | None:
    """The vocabulary in the file's folder, if there is one that is not another model's."""
    if not any((path.parent / file).exists() for file in ("tokenizer.json", *VOCABULARIES)):
        return None
    ids, tokenizer = read_words(path.parent)
    # With the timestamps, or without: not every tokenizer lists them.
    sizes = (dims.vocab_size, dims.vocab_size - dims.num_frames - 1)
    return (ids, tokenizer) if max(ids.values(), default=0) + 1 in sizes else None


def _load(path: Path) -> dict[str, Any]:
    content = read_pickle(path)
    parts = ("dims", "model_state_dict")
    if not isinstance(content, dict) or not all(isinstance(content.get(p), dict) for p in parts):
        raise CheckpointError(
            f"{path} is no checkpoint of openai-whisper: it has no {' and '.join(parts)}"
        )
    return content


def _dims(content: Mapping[str, Any], path: Path) -> Dims:
    stated = content["dims"]
    values = {ours: stated.get(theirs) for ours, theirs in _DIMS.items()}
    wrong = [_DIMS[key] for key, value in values.items() if type(value) is not int or value < 1]
    if wrong:
        raise CheckpointError(f"{path}: dims has no {', '.join(wrong)}")
    if stated.get("n_text_state", values["d_model"]) != values["d_model"]:
        raise CheckpointError(f"{path}: n_text_state must be n_audio_state, as Whisper has")
    return Dims(**values)


def _tensors(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in state.items():
        for theirs, ours in _NAMES:
            key = re.sub(theirs, ours, key)
        yield f"model.{key}", tensor
