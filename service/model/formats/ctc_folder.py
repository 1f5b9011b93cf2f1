"""A folder in the hub's format that holds a CTC model: wav2vec 2.0, HuBERT, or a conformer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from service.errors import CheckpointError
from service.languages import ALIASES, NAMES
from service.model.ctc.dims import Dims
from service.model.ctc.vocabulary import CtcVocabulary
from service.model.ctc.weights import ACTIVATIONS
from service.model.formats.hub_folder import stored_tensors
from service.model.formats.source import CTC_KINDS
from service.model.tokens import read_json
from service.types import SAMPLE_RATE

# By model_type: what its parameters' names begin with.
PREFIXES = {kind: f"{kind.replace('-', '_')}." for kind in CTC_KINDS}
MOST, MOST_LAYERS, MOST_CONVS = 1_000_000, 128, 32
# What is computed here, and what config.json means by leaving it out (transformers 5.24).
_SUPPORTED = {
    "add_adapter": (False, "adapters behind the encoder"),
    "adapter_attn_dim": (None, "adapters for languages"),
    "conv_pos_batch_norm": (False, "positions normed over batches"),
    "layer_norm_eps": (1e-5, "another layer_norm_eps than 1e-05"),
}
_USUAL = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 32,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "conv_depthwise_kernel_size": 31,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "hidden_act": "gelu",
    "do_stable_layer_norm": False,
    "rotary_embedding_base": 10_000,
}
# Of no use to what is computed here: the mask and the quantiser of training, what is worked out.
_UNUSED = re.compile(
    r"masked_spec_embed|quantizer\.|project_(hid|q)\.|.*\.(num_batches_tracked|inv_freq)"
)


@dataclass(frozen=True, slots=True, eq=False)
class CtcSource:
    """A CTC model that is not on a device yet.

    `language`: the code of what it hears. `normalises`: windows to a mean of 0 and a variance of 1.
    `tensors` gives every parameter that is used, without the model's own prefix, one at a time, in
    the type that is stored; it raises CheckpointError for what cannot be read.
    """

    place: str
    dims: Dims
    vocabulary: CtcVocabulary
    language: str
    normalises: bool
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]


def read_ctc_folder(folder: Path, name: str = "") -> CtcSource:
    """`name`: what the model is called, which may say its language.

    Raises CheckpointError for a model that is not supported, incomplete or corrupt.
    """
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in PREFIXES:
        only = ", ".join(map(repr, PREFIXES))
        raise CheckpointError(f"{folder}: model_type is {kind!r}; CTC models are {only}")
    try:
        for key, (value, meaning) in _SUPPORTED.items():
            if config.get(key, value) != value:
                raise CheckpointError(f"config.json: {key} says {meaning}: not supported")
        dims = _dims(kind, config)
        words = _read_words(folder)
        vocabulary = _vocabulary(folder, words, config, dims)
        return CtcSource(
            place=str(folder),
            dims=dims,
            vocabulary=vocabulary,
            language=_language(config, name or folder.name, vocabulary.texts),
            normalises=_normalises(folder),
            tensors=partial(_tensors, folder, PREFIXES[kind]),
        )
    except CheckpointError as error:
        said = str(error)
        raise CheckpointError(said if str(folder) in said else f"{folder}: {said}") from error


def _dims(kind: str, config: Mapping[str, Any]) -> Dims:
    told = {key: usual if config.get(key) is None else config[key] for key, usual in _USUAL.items()}
    convs = {key: _counts(key, told[key]) for key in ("conv_dim", "conv_kernel", "conv_stride")}
    if len({len(counts) for counts in convs.values()}) != 1:
        raise CheckpointError("config.json: conv_dim, conv_kernel and conv_stride differ in length")
    conformer = kind == "wav2vec2-conformer"
    positions = config.get("position_embeddings_type", "relative") if conformer else None
    dims = Dims(
        d_model=_count("hidden_size", told),
        heads=_count("num_attention_heads", told),
        layers=_count("num_hidden_layers", told, MOST_LAYERS),
        inner=_count("intermediate_size", told),
        vocab_size=_count("vocab_size", told),
        channels=convs["conv_dim"],
        kernels=convs["conv_kernel"],
        strides=convs["conv_stride"],
        group_norm=_one_of("feat_extract_norm", told, ("group", "layer")) == "group",
        norm_first=conformer or bool(told["do_stable_layer_norm"]),
        conformer=conformer,
        positions="convolution" if positions is None else positions,
        position_kernel=_count("num_conv_pos_embeddings", told),
        position_groups=_count("num_conv_pos_embedding_groups", told),
        reach=_count("conv_depthwise_kernel_size", told),
        activation=_one_of("hidden_act", told, tuple(ACTIVATIONS)),
        stem_activation=_one_of("feat_extract_activation", told, tuple(ACTIVATIONS)),
        rotary_base=float(_count("rotary_embedding_base", told)),
    )
    if dims.positions not in ("convolution", "relative", "rotary"):
        raise CheckpointError(
            f"config.json: position_embeddings_type is {positions!r}; "
            "'relative', 'rotary' and null are supported"
        )
    return _check_divisible(dims)


def _check_divisible(dims: Dims) -> Dims:
    for parts, name in ((dims.heads, "heads"), (dims.position_groups, "groups of its positions")):
        if dims.d_model % parts:
            raise CheckpointError(f"{dims.d_model} cannot be divided among {parts} {name}")
    if dims.positions == "rotary" and dims.d_model // dims.heads % 2:
        raise CheckpointError(f"heads of {dims.d_model // dims.heads} cannot be turned in pairs")
    if dims.conformer and dims.reach % 2 == 0:
        raise CheckpointError("config.json: conv_depthwise_kernel_size must be odd")
    if not dims.least_samples <= SAMPLE_RATE:
        raise CheckpointError(f"a frame looks at {dims.least_samples} samples, at most a second's")
    return dims


def _count(key: str, told: Mapping[str, Any], most: int = MOST) -> int:
    value = told[key]
    if type(value) is not int or not 1 <= value <= most:
        raise CheckpointError(f"config.json says {value!r} for {key}")
    return value


def _counts(key: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_CONVS:
        raise CheckpointError(f"config.json says {value!r} for {key}")
    return tuple(_count(key, {key: one}) for one in value)


def _one_of(key: str, told: Mapping[str, Any], valid: Sequence[str]) -> str:
    if told[key] not in valid:
        listed = ", ".join(map(repr, valid))
        raise CheckpointError(f"config.json: {key} is {told[key]!r}; supported: {listed}")
    return str(told[key])


def _normalises(folder: Path) -> bool:
    path = folder / "preprocessor_config.json"
    told = read_json(path) if path.exists() else {}
    for key, needed in (("sampling_rate", SAMPLE_RATE), ("feature_size", 1)):
        if told.get(key, needed) != needed:
            raise CheckpointError(f"{path}: {key} must be {needed}, not {told[key]!r}")
    return bool(told.get("do_normalize", True))


@dataclass(frozen=True, slots=True)
class _Words:
    """Of tokenizer_config.json, or special_tokens_map.json, or what transformers leaves out."""

    pad_token: str = "<pad>"
    unk_token: str = "<unk>"
    bos_token: str = "<s>"
    eos_token: str = "</s>"
    word_delimiter_token: str = "|"
    do_lower_case: bool = False


def _read_words(folder: Path) -> _Words:
    told: dict[str, Any] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / file).exists():
            told |= read_json(folder / file)
    if "Phoneme" in str(told.get("tokenizer_class")) or told.get("phonemizer_backend"):
        raise CheckpointError("the vocabulary is of phonemes, and its texts would be too")
    # A token is its text, or an object that has it as `content`.
    plain = {
        key: value["content"] if isinstance(value, dict) and "content" in value else value
        for key, value in told.items()
    }
    known = {f.name: plain[f.name] for f in fields(_Words) if plain.get(f.name) is not None}
    for key, value in known.items():
        if not isinstance(value, bool if key == "do_lower_case" else str):
            raise CheckpointError(f"tokenizer_config.json says {value!r} for {key}")
    return _Words(**known)


def _vocabulary(
    folder: Path, words: _Words, config: Mapping[str, Any], dims: Dims
) -> CtcVocabulary:
    ids = read_json(folder / "vocab.json")
    if any(isinstance(value, dict) for value in ids.values()):
        raise CheckpointError(
            "vocab.json has a vocabulary for each of several languages, which take adapters: "
            "not supported"
        )
    size = dims.vocab_size
    for token, number in ids.items():
        if type(number) is not int or not 0 <= number < size:
            raise CheckpointError(
                f"vocab.json says {number!r} for {token!r}; config.json has {size} symbols"
            )
    for token, role in ((words.pad_token, "blank"), (words.word_delimiter_token, "word delimiter")):
        if token not in ids:
            raise CheckpointError(f"vocab.json has no {token!r}, which is the {role}")
    blank, told = ids[words.pad_token], config.get("pad_token_id")
    if told is not None and told != blank:
        raise CheckpointError(
            f"config.json says that the blank (pad_token_id) is {told!r}, "
            f"but {words.pad_token!r} is {blank} in vocab.json"
        )
    silent = (words.pad_token, words.unk_token, words.bos_token, words.eos_token)
    texts = [""] * size
    for token, number in ids.items():
        spelt = token.lower() if words.do_lower_case else token
        texts[number] = "" if token in silent else spelt
    texts[ids[words.word_delimiter_token]] = " "
    return CtcVocabulary(
        texts=tuple(texts),
        blank=blank,
        delimiter=ids[words.word_delimiter_token],
        frame_s=dims.frame_samples / SAMPLE_RATE,
    )


def _language(config: Mapping[str, Any], name: str, texts: Sequence[str]) -> str:
    """What config.json calls `language`; else a language that is part of the model's name, or a
    code at its end; else English, where the vocabulary spells nothing that English does not."""
    by_name = {english: code for code, english in NAMES.items()} | dict(ALIASES)
    told = config.get("language")
    if told is not None:
        code = by_name.get(str(told).lower(), str(told).lower())
        if code not in NAMES:
            raise CheckpointError(f"config.json: language {told!r} is no code or English name")
        return code
    parts = re.split(r"[^a-z]+", name.rpartition("/")[2].lower())
    if found := [by_name[part] for part in parts if part in by_name]:
        return found[-1]
    if parts[-1] in NAMES:
        return parts[-1]
    if all(char.isascii() for text in texts for char in text if char.isalpha()):
        return "en"
    if found := [part for part in parts[1:] if part in NAMES]:
        return found[-1]
    raise CheckpointError(
        'the vocabulary is not of English, and nothing says which language: add "language": "de" '
        "(its code) to config.json"
    )


def _tensors(folder: Path, prefix: str) -> Iterator[tuple[str, Tensor]]:
    try:
        for key, tensor in stored_tensors(folder):
            name = key.removeprefix(prefix)
            if not _UNUSED.match(name):
                yield name, tensor
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the weights cannot be read: {error}") from error
