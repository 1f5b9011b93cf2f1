"""CTranslate2 folders: the same model as the hub's, and every damage an error of ours.

The writer was held against CTranslate2 4.8.5's converter: float32, float16, bfloat16, int8 (also
with float16, float32 and bfloat16 beside it) and int16 of the same weights read as the hub's do.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from service.errors import CheckpointError
from service.families.whisper import Whisper
from service.model.checkpoint import load_checkpoint
from service.model.formats.ct2_binary import Ct2Binary
from service.model.formats.ct2_folder import list_tokens
from service.model.formats.find import read_folder
from service.model.tokens import Vocabulary
from service.profiles import BUILT_IN
from service.types import DecodeOptions, Hypothesis
from tests.checkpoints import load_plain, openai_tokenizer
from tests.model.formats.ct2_writer import (
    Variables,
    binary,
    quantised,
    string,
    variables_of,
    vocabulary_of,
    write_ct2,
)
from tests.windows import finish, noise

DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16")}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(read_folder(folder).tensors())


def said(name: Path) -> list[Hypothesis]:
    model = Whisper(load_plain(str(name)))
    encoded = model.encode(noise(2), [BUILT_IN["dense"]] * 2)
    batch = model.new_decode_batch()
    batch.token_limit = 24
    batch.join([0, 1], encoded, [DecodeOptions("en")] * 2)
    return finish(batch, 2)


@pytest.mark.parametrize("name", DTYPES)
def test_the_same_weights_are_the_same_to_the_bit(
    mini_folder: Path, tmp_path: Path, name: str
) -> None:
    hub = Path(shutil.copytree(mini_folder, tmp_path / "hub"))
    state = load_file(hub / "model.safetensors")
    cast = {key: tensor.to(DTYPES[name]) for key, tensor in state.items()}
    save_file(cast, hub / "model.safetensors")
    theirs, ours = tensors(write_ct2(tmp_path / "ct2", hub)), tensors(hub)
    assert theirs.keys() == ours.keys()
    assert all(theirs[key].dtype == DTYPES[name] for key in ours)
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)


def test_the_same_words_and_the_same_facts(mini_folder: Path, tmp_path: Path) -> None:
    ct2 = write_ct2(tmp_path / "ct2", mini_folder)
    assert said(ct2) == said(mini_folder)
    one, other = (load_plain(str(f)) for f in (ct2, mini_folder))
    assert one.weights.dims == other.weights.dims
    assert one.num_parameters == other.num_parameters
    for field in fields(Vocabulary):
        assert getattr(one.vocabulary, field.name) == getattr(other.vocabulary, field.name)
    assert one.alignment.heads == ((1, 0), (1, 1))


def test_an_english_only_model_has_no_languages(mini_en_folder: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(str(write_ct2(tmp_path / "ct2", mini_en_folder)), device="cpu")
    assert not loaded.vocabulary.multilingual
    assert loaded.vocabulary.language_names == {"en": "english"}


@pytest.mark.parametrize("others", [torch.float32, torch.float16, torch.bfloat16])
def test_int8_is_its_values_over_its_scales(
    mini_folder: Path, tmp_path: Path, others: torch.dtype
) -> None:
    stored, meant = quantised(variables_of(mini_folder), others)
    theirs = tensors(write_ct2(tmp_path / "int8", mini_folder, stored))
    plain = tensors(write_ct2(tmp_path / "plain", mini_folder, meant))
    assert theirs["model.decoder.layers.1.fc1.weight"].dtype == torch.float32
    assert all(torch.equal(theirs[key], plain[key]) for key in plain)


def test_int16_has_one_scale(mini_folder: Path, tmp_path: Path) -> None:
    variables, name = variables_of(mini_folder), "encoder/layer_0/ffn/linear_0/weight"
    values = variables[name]
    variables[name] = torch.round(values * 1000).to(torch.int16)
    variables[f"{name}_scale"] = torch.tensor(1000.0)
    read = tensors(write_ct2(tmp_path / "ct2", mini_folder, variables))
    expected = variables[name].float() / 1000
    assert torch.equal(read["model.encoder.layers.0.fc1.weight"], expected)


def test_a_list_of_tokens_stands_for_a_tokenizer(mini_folder: Path, tmp_path: Path) -> None:
    folder = write_ct2(tmp_path / "ct2", mini_folder, tokenizer=False)
    tokens = vocabulary_of(mini_folder)
    (folder / "vocabulary.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    assert list_tokens(folder) == tokens
    (folder / "vocabulary.json").write_text(json.dumps(tokens))
    (folder / "vocabulary.txt").unlink()
    loaded = load_plain(str(folder))
    theirs = openai_tokenizer(True)
    assert loaded.tokenizer
    for text in (" It's 1,234 - naïve!", " 今日はいい天気ですね。 👋🏽", "  \n two"):
        ids = loaded.tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text)
        assert loaded.vocabulary.decode(ids) == text
    assert loaded.vocabulary.no_timestamps == theirs.no_timestamps


def test_heads_that_are_not_said_are_64_wide(mini_folder: Path, tmp_path: Path) -> None:
    variables = variables_of(mini_folder)
    del variables["encoder/num_heads"]
    assert read_folder(write_ct2(tmp_path / "ct2", mini_folder, variables)).dims.encoder_heads == 2


def drop(name: str) -> Callable[[Variables], None]:
    def apply(variables: Variables) -> None:
        del variables[name]

    return apply


def replace(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
    def apply(variables: Variables) -> None:
        variables[name] = change(variables[name])

    return apply


FC1 = "decoder/layer_1/ffn/linear_0/weight"


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (drop("encoder/conv1/bias"), "encoder/conv1/bias is missing"),
        (drop("decoder/layer_1/attention/linear_1/bias"), "linear_1/bias is missing"),
        (drop("decoder/embeddings/weight"), "stands for decoder/embeddings/weight"),
        (drop("encoder/layer_0/ffn/linear_0/weight"), "linear_0/weight is missing"),
        (replace(FC1, lambda t: t.to(torch.int8)), f"int8 and has no {FC1}_scale"),
        (replace(FC1, lambda t: t[:, :-1]), r"fc1\.weight is .*says"),
        (replace("encoder/conv1/weight", lambda t: t[..., :2]), r"conv1\.weight is"),
        (replace("encoder/layer_norm/beta", lambda t: t[:-1]), r"layer_norm\.bias is"),
        (replace("encoder/num_heads", lambda t: t + 1), "divided among 3 encoder heads"),
        (replace("encoder/num_heads", lambda t: torch.zeros(1)), "one whole number is expected"),
        (replace("decoder/layer_0/attention/linear_1/weight", lambda t: t[1:]), "not 2 layers"),
        (replace("decoder/embeddings/weight", lambda t: t[:50_000]), "belongs to another"),
        (replace("decoder/embeddings/weight", lambda t: t[0]), "a matrix is expected"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(
    mini_folder: Path, tmp_path: Path, breaks: Callable[[Variables], None], message: str
) -> None:
    variables = variables_of(mini_folder)
    breaks(variables)
    folder = write_ct2(tmp_path / "ct2", mini_folder, variables)
    with pytest.raises(CheckpointError, match=message) as refused:
        load_plain(str(folder))
    assert str(folder) in str(refused.value)


SMALL: Variables = {"a": torch.ones(2, 3), "b": torch.tensor(3, dtype=torch.int16)}


def read(data: bytes) -> Ct2Binary:
    return Ct2Binary(memoryview(bytearray(data)), "model.bin")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off: its version"),
        (b"PK\x03\x04" + bytes(40), "no CTranslate2 model"),
        (binary(SMALL, {}, version=7), "binary version 7"),
        (binary(SMALL, {}, spec="TransformerSpec"), "'TransformerSpec'; only 'WhisperSpec'"),
        (binary(SMALL, {}, revision=4), "revision 4"),
        (binary(SMALL, {}) + b"x", "1 bytes follow"),
        (binary(SMALL, {"c": "nothing"}), "c stands for nothing"),
        (binary({}, {})[:-8] + struct.pack("<I", 2**32 - 1), "cut off: a variable's name"),
    ],
)
def test_a_file_of_another_kind_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(data)


HEAD = binary({}, {})[:-8] + struct.pack("<I", 1) + string("a")


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (struct.pack("<B2IBI", 2, 2**31, 2**31, 0, 2**32 - 1), "which is not"),
        (struct.pack("<BIBI", 1, 2**30 - 1, 0, 2**32 - 4), "cut off: a needs 4294967292 bytes"),
        (struct.pack("<B", 255), "255 dimensions"),
        (struct.pack("<BIBI", 1, 1, 9, 4), "unknown type 9"),
    ],
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(rest: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(HEAD + rest)


@pytest.mark.parametrize("size", range(len(binary(SMALL, {"c": "a"}))))
def test_a_file_that_is_cut_anywhere_is_refused(size: int) -> None:
    with pytest.raises(CheckpointError, match="cut off"):
        read(binary(SMALL, {"c": "a"})[:size])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_an_error_of_ours_or_none(data: st.DataObject) -> None:
    """Bytes flipped where names, shapes and types are: in a file of few values."""
    scaled = {"c": torch.ones(2, 1, dtype=torch.int8), "c_scale": torch.ones(2)}
    damaged = bytearray(binary(SMALL | scaled, {"x": "a"}))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
        for name in found.variables:
            assert found.values(name).is_floating_point()
    except CheckpointError:
        pass


def test_a_folder_without_a_vocabulary_is_refused(mini_folder: Path, tmp_path: Path) -> None:
    folder = write_ct2(tmp_path / "ct2", mini_folder, tokenizer=False)
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json, vocabulary\.json or"):
        load_plain(str(folder))
    (folder / "vocabulary.json").write_text('{"a": 0}')
    with pytest.raises(CheckpointError, match="list of tokens"):
        load_plain(str(folder))
    (folder / "vocabulary.json").write_text('["a", "b"]')
    with pytest.raises(CheckpointError, match="byte-level BPE"):
        load_plain(str(folder))


def test_an_empty_file_is_refused(mini_folder: Path, tmp_path: Path) -> None:
    folder = write_ct2(tmp_path / "ct2", mini_folder)
    (folder / "model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_plain(str(folder))
