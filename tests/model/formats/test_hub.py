"""Hub ids of either format, from a cache that is laid out as the hub's library lays it out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from service.errors import CheckpointError
from service.model.formats.find import find_model, read_folder
from tests.checkpoints import load_plain, openai_tokenizer
from tests.model.formats.ct2_writer import write_ct2

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a machine without a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def keep(hub_cache: Path, hub_id: str) -> Path:
    """Where the files of the id are to be put; the folder is not made yet."""
    kept = hub_cache / f"models--{hub_id.replace('/', '--')}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(REVISION)
    (kept / "snapshots").mkdir()
    return kept / "snapshots" / REVISION


@pytest.mark.parametrize(
    ("name", "hub_id", "answered", "is_ct2"),
    [
        ("Systran/faster-whisper-mini", "Systran/faster-whisper-mini", None, True),
        ("openai/whisper-mini", "openai/whisper-mini", None, False),
        ("small", "openai/whisper-small", "whisper-small", False),
    ],
)
def test_an_id_is_loaded_from_the_cache_in_either_format(
    mini_folder: Path, hub_cache: Path, name: str, hub_id: str, answered: str | None, is_ct2: bool
) -> None:
    place = keep(hub_cache, hub_id)
    if is_ct2:
        write_ct2(place, mini_folder)
    else:
        shutil.copytree(mini_folder, place)
    loaded = load_plain(name)
    expected = dict(read_folder(mini_folder).tensors())
    assert torch.equal(
        loaded.weights.decoder.embedding_VD, expected["model.decoder.embed_tokens.weight"]
    )
    assert loaded.vocabulary.multilingual
    assert (loaded.name, loaded.origin) == (answered or name, f"https://huggingface.co/{hub_id}")


def test_a_pickle_is_taken_where_there_is_nothing_else(mini_folder: Path, hub_cache: Path) -> None:
    place = keep(hub_cache, "nobody/old")
    place.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(mini_folder / name, place)
    state = dict(read_folder(mini_folder).tensors())
    torch.save(state, place / "pytorch_model.bin")
    found = dict(find_model("nobody/old").source.tensors())
    assert found.keys() == state.keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nobody/nothing",
            "model 'nobody/nothing': no such folder, and nobody/nothing could not be fetched from "
            "the hub: it is not in the cache, and HF_HUB_OFFLINE is set",
        ),
        (
            "small",
            "model 'small': openai/whisper-small could not be fetched from the hub: it is not in "
            "the cache, and HF_HUB_OFFLINE is set",
        ),
        (
            "nowhere",
            "model 'nowhere': no such folder or file, no name of a model like whisper-base, and "
            "not a hub id like openai/whisper-tiny",
        ),
        ("~nobody-at-all/x", "model '~nobody-at-all/x': no such folder or file"),
    ],
)
def test_what_cannot_be_had_says_in_one_sentence_what_was_tried(
    hub_cache: Path, name: str, message: str
) -> None:
    with pytest.raises(CheckpointError) as refused:
        load_plain(name)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("lost", [0, 1, 40_000])
def test_a_tokenizer_that_lost_a_merge_is_made_whole(
    mini_folder: Path, tmp_path: Path, lost: int
) -> None:
    """Copies without the first one, a blank and "t", are about: " the" is two tokens of theirs."""
    folder = tmp_path / "lost"
    shutil.copytree(mini_folder, folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    gone = "".join(content["model"]["merges"].pop(lost))
    path.write_text(json.dumps(content))
    tokenizer = read_folder(folder).tokenizer
    assert tokenizer is not None
    text = "the other theatre is there, isn't it? " + gone.replace("\u0120", " ")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == openai_tokenizer(True).encode(text)
