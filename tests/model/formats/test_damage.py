"""Folders, files and caches that are damaged: an error of ours in one sentence, or a model."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from service.errors import CheckpointError
from service.model.formats.bpe import tokenizer_from_ids
from service.model.tokens import make_vocabulary
from tests.checkpoints import load_plain
from tests.model.formats.ct2_writer import variables_of, write_ct2
from tests.model.formats.test_openai_file import write_pt

WRONG: tuple[Any, ...] = (
    None, True, -1, 1.5, float("inf"), 10**12, "x", [], ["a"], [[1]], [float("inf")], {"a": 1},
)  # fmt: skip
OTHER = ("", "[]", "null", "[" * 100_000, "1" * 5_000, '"\ud83d"')


@pytest.fixture(scope="module")
def small(mini_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each format. To be read only."""
    return {"hub": mini_folder, "ct2": write_ct2(tmp_path_factory.mktemp("ct2") / "f", mini_folder)}


def linked(folder: Path, to: Path) -> Path:
    """A folder to be broken, whose weights are those of the other."""
    to.mkdir()
    for path in folder.iterdir():
        if path.suffix in (".bin", ".safetensors"):
            (to / path.name).symlink_to(path)
        else:
            shutil.copy(path, to)
    return to


def damage(path: Path, source: random.Random) -> None:
    """A value of the JSON replaced, the text replaced, cut, or bytes of it flipped."""
    how, raw = source.randrange(4), bytearray(path.read_bytes())
    if how == 0:
        content = json.loads(raw)
        if path.name == "tokenizer.json":
            where = source.choice([content["model"], content["added_tokens"][0], content])
        else:
            where = content
        where[source.choice(list(where))] = source.choice(WRONG)
        path.write_text(json.dumps(content))
    elif how == 1:
        path.write_bytes(source.choice(OTHER).encode("utf-8", "surrogatepass"))
    elif how == 2:
        path.write_bytes(raw[: source.randrange(len(raw))])
    else:
        for _ in range(3):
            raw[source.randrange(min(len(raw), 3_000))] = source.randrange(256)
        path.write_bytes(raw)


@pytest.mark.parametrize("kind", ["hub", "ct2"])
def test_a_damaged_folder_is_an_error_of_ours_or_a_model(
    small: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    source = random.Random(11)
    refusals = []
    for number in range(8):
        folder = linked(small[kind], tmp_path / str(number))
        files = sorted(path for path in folder.iterdir() if path.suffix == ".json")
        damage(source.choice(files), source)
        try:
            load_plain(str(folder))
        except CheckpointError as error:
            refusals.append(str(error))
    assert refusals
    assert not any("\n" in refusal for refusal in refusals)


def rewrite(name: str, **changes: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return apply


def end_at(number: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        path = folder / "added_tokens.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"<|endoftext|>": number}))

    return apply


def shards(value: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))

    return apply


def pickled(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(change({"model.a": torch.ones(1)}), folder / "pytorch_model.bin")

    return apply


GENERATION = "generation_config.json"


@pytest.mark.parametrize(
    ("kind", "breaks", "message"),
    [
        # As many texts as that are not made room for.
        ("hub", end_at(10**12), "belongs to another checkpoint"),
        ("hub", end_at(-5), "belongs to another checkpoint"),
        ("hub", end_at(float("inf")), "not a byte-level BPE one"),
        ("hub", rewrite(GENERATION, suppress_tokens=5), "suppress_tokens must be"),
        ("hub", rewrite(GENERATION, begin_suppress_tokens=["a"]), "begin_suppress_tokens must"),
        ("hub", rewrite(GENERATION, max_initial_timestamp_index="x"), "must be a whole number"),
        ("hub", rewrite(GENERATION, lang_to_id=5), "lang_to_id must"),
        ("hub", rewrite(GENERATION, forced_decoder_ids=[5]), "forced_decoder_ids must"),
        ("hub", rewrite(GENERATION, alignment_heads=[[float("inf"), 0]]), "alignment_heads must"),
        ("hub", rewrite("config.json", encoder_layers=10**9), "encoder_layers"),
        ("hub", shards([]), "weight_map must"),
        ("hub", shards({"a": 5}), "weight_map must"),
        ("hub", shards({"a": "../b.safetensors"}), "weight_map must"),
        ("hub", pickled(lambda state: [state]), "something else than tensors"),
        ("hub", pickled(lambda state: {5: state["model.a"]}), "something else than tensors"),
        ("hub", pickled(lambda state: {"a": state["model.a"]}), "is missing"),
        ("hub", pickled(lambda _: {"a": torch.ones(1).expand(10**6, 10**6)}), "larger than what"),
        ("hub", pickled(lambda _: {"a": torch.ones(3).to_sparse()}), "not supported"),
        ("hub", pickled(lambda _: {"a": torch.ones(3, device="meta")}), "not supported"),
        ("ct2", rewrite("config.json", lang_ids=5), "lang_ids must be a list"),
        ("ct2", rewrite("config.json", suppress_ids={"a": 1}), "suppress_tokens must be"),
        ("ct2", rewrite("config.json", alignment_heads=7), "alignment_heads must"),
    ],
)
def test_a_file_that_says_nonsense_is_refused(
    small: dict[str, Path],
    tmp_path: Path,
    kind: str,
    breaks: Callable[[Path], None],
    message: str,
) -> None:
    folder = linked(small[kind], tmp_path / "copy")
    breaks(folder)
    with pytest.raises(CheckpointError, match=message) as refused:
        load_plain(str(folder))
    assert "\n" not in str(refused.value)


def test_a_folder_of_no_frames_is_refused(mini_folder: Path, tmp_path: Path) -> None:
    variables = variables_of(mini_folder)
    name = "encoder/position_encodings/encodings"
    variables[name] = variables[name][:0]
    folder = write_ct2(tmp_path / "ct2", mini_folder, variables)
    with pytest.raises(CheckpointError, match="says 0 for num_frames"):
        load_plain(str(folder))


def test_a_list_of_other_tokens_is_no_vocabulary() -> None:
    alphabet = [chr(n) for n in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x144))]
    for odd in ("a" * 100_000, "abc", "\ud83d"):
        tokens = [*alphabet, odd, "<|endoftext|>"]
        with pytest.raises(CheckpointError, match="not a byte-level BPE one"):
            tokenizer_from_ids({token: number for number, token in enumerate(tokens)})


def test_a_vocabulary_without_room_for_times_is_refused() -> None:
    ids = {"<|endoftext|>": 3, "<|startoftranscript|>": 4, "<|notimestamps|>": 5}
    with pytest.raises(CheckpointError, match="vocabulary of 6"):
        make_vocabulary(ids, {}, vocab_size=6, num_frames=1500)


def test_a_checkpoint_of_openais_is_cut_or_lies(mini_folder: Path, tmp_path: Path) -> None:
    path = write_pt(tmp_path / "openai", mini_folder)
    shutil.copy(mini_folder / "tokenizer.json", path.parent)
    raw, source = path.read_bytes(), random.Random(3)
    content = torch.load(path, weights_only=True)
    for _ in range(4):
        damaged = bytearray(raw[: source.choice([len(raw), source.randrange(len(raw))])])
        for _ in range(20):  # its directory is at the end, its pickle at the beginning
            at = source.choice([source.randrange(9_000), -1 - source.randrange(9_000)])
            damaged[at % len(damaged)] = source.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"^[^\n]*$"):
            load_plain(str(path))
    for key in ("n_vocab", "n_audio_ctx", "n_text_layer", "n_audio_head"):
        lies = content["dims"] | {key: content["dims"][key] + 1}
        torch.save(content | {"dims": lies}, path)
        with pytest.raises(CheckpointError, match=r"^[^\n]*$"):
            load_plain(str(path))
