"""OpenAI's `.pt` files: the same model as the hub's, whichever vocabulary is at hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from service.errors import CheckpointError
from service.model.formats import find
from service.model.formats.find import find_model, read_folder
from service.model.formats.openai_facts import alignment_heads, with_cantonese
from service.model.weights import Dims
from tests.checkpoints import load_plain, openai_tokenizer, to_openai_whisper, write_checkpoint
from tests.model.formats.test_ct2 import said


def write_pt(folder: Path, hub: Path, name: str = "mine.pt") -> Path:
    folder.mkdir(exist_ok=True)
    model = to_openai_whisper(hub)
    content = {"dims": asdict(model.dims), "model_state_dict": model.state_dict()}
    torch.save(content, folder / name)
    return folder / name


@pytest.mark.parametrize("kind", ["mini_folder", "mini_en_folder", "like large-v3"])
def test_the_same_weights_and_the_same_words(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    if kind == "like large-v3":
        hub = write_checkpoint(tmp_path / "hub", shape="mini", num_mels=128)
    else:
        hub = request.getfixturevalue(kind)
    path = write_pt(tmp_path / "openai", hub)
    shutil.copy(hub / "tokenizer.json", path.parent)
    ours, theirs = read_folder(hub), find_model(str(path)).source
    assert theirs.dims == ours.dims
    expected, found = dict(ours.tensors()), dict(theirs.tensors())
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert list(theirs.settings["suppress_tokens"]) == ours.settings["suppress_tokens"]
    assert list(theirs.settings["begin_suppress_tokens"]) == ours.settings["begin_suppress_tokens"]
    if theirs.dims.num_mels == 80:
        assert said(path) == said(hub)
    assert load_plain(str(path)).name == "mine"


def test_large_v3s_vocabulary_is_the_multilingual_one_and_a_language(mini_folder: Path) -> None:
    ids, tokenizer = with_cantonese(read_folder(mini_folder).ids)
    theirs = openai_tokenizer(True, 100)
    special = {token: number for token, number in ids.items() if token in theirs.special_tokens}
    assert special == theirs.special_tokens
    text = " 今日はいい天気ですね"
    assert tokenizer.encode(text, add_special_tokens=False).ids == theirs.encode(text)


def test_alignment_heads_go_by_the_shape_and_of_large_v1_by_the_name() -> None:
    base = Dims(80, 1500, 512, 8, 8, 6, 6, 51865, 448)
    large = Dims(80, 1500, 1280, 20, 20, 32, 32, 51865, 448)
    assert alignment_heads(base, "base") == (
        (3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6),
    )  # fmt: skip
    v1, v2 = (alignment_heads(large, name) for name in ("large-v1", "large-v2"))
    assert v1
    assert v2
    assert (v1[0], v2[0]) == ((9, 19), (10, 12))
    assert alignment_heads(Dims(80, 1500, 128, 2, 2, 2, 2, 51865, 448), "mine") is None


def test_without_any_vocabulary_it_says_what_was_tried(
    mini_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pt(tmp_path / "openai", mini_folder)

    def refuse(hub_id: str, weights: tuple[str, ...]) -> Path:
        raise CheckpointError(f"{hub_id} could not be fetched from the hub: offline")

    monkeypatch.setattr(find, "download", refuse)
    monkeypatch.setattr(find, "find_files", lambda package: None)
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json beside it, .*offline"):
        find_model(str(path), tmp_path / "cache")


def change(**values: Any) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        torch.save(torch.load(path, weights_only=True) | values, path)

    return apply


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (cut, "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_text("no pickle"), "cannot be read"),
        (lambda path: torch.save({"evil": Path}, path), "cannot be read"),
        (lambda path: torch.save([1], path), "no checkpoint of openai-whisper"),
        (change(dims={}), "dims has no n_mels"),
        (change(model_state_dict={"a": 1}), "something else than tensors"),
        (change(model_state_dict={}), "is missing"),
    ],
)
def test_a_bad_file_is_refused(
    mini_folder: Path, tmp_path: Path, breaks: Callable[[Path], None], message: str
) -> None:
    path = write_pt(tmp_path / "openai", mini_folder)
    shutil.copy(mini_folder / "tokenizer.json", path.parent)
    breaks(path)
    with pytest.raises(CheckpointError, match=message) as refused:
        load_plain(str(path))
    assert str(path) in str(refused.value)


def test_another_file_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text(json.dumps({}))
    with pytest.raises(CheckpointError, match=r"no \.pt"):
        load_plain(str(tmp_path / "model.onnx"))
