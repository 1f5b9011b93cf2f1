"""Folders of CTC models: what is read of them, and what is refused in a sentence."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from service.errors import CheckpointError
from service.families.ctc import CtcModel
from service.families.load import load_model
from service.model.checkpoint import load_checkpoint
from service.model.formats.ctc_folder import read_ctc_folder
from tests.ctc_checkpoints import change, load_plain_ctc, write_ctc
from tests.model.formats.test_damage import damage, linked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be read only."""
    return write_ctc(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A folder to change."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


def config(**values: Any) -> Callable[[Path], object]:
    return lambda folder: change(folder, "config.json", **values)


def words(**values: Any) -> Callable[[Path], object]:
    return lambda folder: change(folder, "tokenizer_config.json", **values)


def symbols(**values: Any) -> Callable[[Path], object]:
    return lambda folder: change(folder, "vocab.json", **values)


def without(name: str) -> Callable[[Path], object]:
    def remove(folder: Path) -> None:
        path = folder / "model.safetensors"
        state = {key: tensor for key, tensor in load_file(path).items() if key != name}
        save_file(state, path)

    return remove


def no_file(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def no_blank(folder: Path) -> None:
    path = folder / "vocab.json"
    ids = json.loads(path.read_text())
    del ids["<pad>"]
    path.write_text(json.dumps(ids))


def quantised(folder: Path) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    state["lm_head.weight"] = state["lm_head.weight"].to(torch.int8)
    save_file(state, path)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (config(add_adapter=True), "adapters behind the encoder: not supported"),
        (config(adapter_attn_dim=16), "adapters for languages: not supported"),
        (config(layer_norm_eps=1e-6), "another layer_norm_eps than 1e-05: not supported"),
        (config(hidden_act="selu"), "hidden_act is 'selu'; supported: 'gelu', 'relu'"),
        (config(feat_extract_norm="batch"), "supported: 'group', 'layer'"),
        (config(num_hidden_layers="4"), "config.json says '4' for num_hidden_layers"),
        (config(num_hidden_layers=3), "config.json says 3 layers, the weights have more"),
        (config(num_hidden_layers=5), "encoder.layers.4.layer_norm.weight is missing"),
        (config(hidden_size=60), "is (48,), but config.json says (60,)"),
        (config(num_attention_heads=5), "48 cannot be divided among 5 heads"),
        (config(conv_dim=[32] * 6), "conv_dim, conv_kernel and conv_stride differ in length"),
        (config(conv_stride=[10**6] * 7), "a frame looks at"),
        (config(vocab_size=40), "but config.json says (40, 48)"),
        (config(pad_token_id=3), "the blank (pad_token_id) is 3, but '<pad>' is 0"),
        (config(language="Klingon"), "language 'Klingon' is no code or English name"),
        (config(model_type="wavlm"), "model_type is 'wavlm'"),
        (words(tokenizer_class="Wav2Vec2PhonemeCTCTokenizer"), "is of phonemes"),
        (words(pad_token=5), "tokenizer_config.json says 5 for pad_token"),
        (words(word_delimiter_token="_"), "vocab.json has no '_', which is the word delimiter"),
        (no_blank, "vocab.json has no '<pad>', which is the blank"),
        (symbols(A=99), "vocab.json says 99 for 'A'; config.json has 32 symbols"),
        (symbols(eng={"A": 5}), "a vocabulary for each of several languages"),
        (symbols(A="7"), "vocab.json says '7' for 'A'"),
        (symbols(**{"Ä": 5}), 'add "language": "de" (its code) to config.json'),
        (no_file("vocab.json"), "vocab.json"),
        (no_file("model.safetensors"), "has no model.safetensors"),
        (without("lm_head.weight"), "there is no lm_head"),
        (without("lm_head.bias"), "the parameter lm_head.bias is missing"),
        (
            without("wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
            "the parameter encoder.pos_conv_embed.conv.weight_g is missing",
        ),
        (quantised, "quantised checkpoints are not supported"),
        (
            lambda folder: change(folder, "preprocessor_config.json", sampling_rate=8_000),
            "sampling_rate must be 16000, not 8000",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "cannot be read"),
    ],
)
def test_what_cannot_be_served_is_said(
    copy: Path, breaks: Callable[[Path], object], message: str
) -> None:
    breaks(copy)
    with pytest.raises(CheckpointError) as refused:
        load_model(str(copy), "cpu", "float32")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_damaged_folder_is_an_error_of_ours_or_a_model(folder: Path, tmp_path: Path) -> None:
    source = random.Random(5)
    refusals = []
    for number in range(40):
        broken = linked(folder, tmp_path / str(number))
        files = sorted(path for path in broken.iterdir() if path.suffix == ".json")
        damage(source.choice(files), source)
        try:
            load_plain_ctc(broken)
        except CheckpointError as error:
            refusals.append(str(error))
    assert 10 < len(refusals) < 40
    assert not any("\n" in refusal for refusal in refusals)


def test_the_name_of_a_folder_is_enough(folder: Path) -> None:
    model = load_model(str(folder), "cpu", "float32")
    assert isinstance(model, CtcModel)
    assert model.info.name == folder.name
    assert model.info.origin == ""


def test_what_is_for_whisper_says_so(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="a CTC model; this is for Whisper's"):
        load_checkpoint(str(folder), "cpu", "float32")


@pytest.mark.parametrize(
    ("name", "told", "language"),
    [
        ("wav2vec2-base-960h", None, "en"),
        ("wav2vec2-large-xlsr-53-german", None, "de"),
        ("wav2vec2-base-960h", "nl", "nl"),
        ("wav2vec2-large-xlsr-53-german", "Dutch", "nl"),
        ("spanish-voices/wav2vec2-base-960h", None, "en"),  # an owner's name
        ("somebody/wav2vec2-xls-r-300m-id", None, "id"),
    ],
)
def test_the_language(copy: Path, name: str, told: str | None, language: str) -> None:
    change(copy, "config.json", language=told)
    assert read_ctc_folder(copy, name).language == language


def test_a_vocabulary_of_other_letters_needs_a_language(copy: Path) -> None:
    change(copy, "vocab.json", **{"Ж": 5})
    assert read_ctc_folder(copy, "wav2vec2-large-ru").language == "ru"
    change(copy, "config.json", language="uk")
    assert read_ctc_folder(copy, "wav2vec2-large-ru").language == "uk"


def test_words_as_the_files_say_them(copy: Path) -> None:
    change(copy, "tokenizer_config.json", do_lower_case=True)
    vocabulary = read_ctc_folder(copy).vocabulary
    assert vocabulary.texts[:6] == ("", "", "", "", " ", "e")
    assert (vocabulary.blank, vocabulary.delimiter, vocabulary.frame_s) == (0, 4, 0.02)


def test_without_files_that_say_otherwise_all_is_as_usual(copy: Path) -> None:
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        (copy / name).unlink()
    source = read_ctc_folder(copy)
    assert source.normalises
    assert source.vocabulary.texts[5] == "E"
    change_to = {"do_normalize": False}
    (copy / "preprocessor_config.json").write_text(json.dumps(change_to))
    assert not read_ctc_folder(copy).normalises
