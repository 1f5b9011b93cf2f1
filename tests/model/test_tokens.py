from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import CheckpointError, InvalidRequest
from service.model.tokens import Vocabulary, make_vocabulary, read_ids, read_json
from service.types import DecodeOptions, Piece
from tests.checkpoints import openai_tokenizer

FILES = ("tokenizer.json", "vocab.json", "added_tokens.json", "generation_config.json")
TEXTS = (
    " Seven, eight; nine!",
    " Übergrößenträger und naïve façades",
    " 今日はいい天気ですね。",
    " Привет 👋🏽 שלום नमस्ते",
)


def read(folder: Path, config: dict[str, Any] | None = None, vocab_size: int = 51865) -> Vocabulary:
    path = folder / "generation_config.json"
    settings = (config or {}) | (read_json(path) if path.exists() else {})
    return make_vocabulary(read_ids(folder), settings, vocab_size, num_frames=1500)


@pytest.fixture(scope="module")
def vocabulary(mini_folder: Path) -> Vocabulary:
    return read(mini_folder)


@pytest.fixture(scope="module")
def english(mini_en_folder: Path) -> Vocabulary:
    return read(mini_en_folder, vocab_size=51864)


@pytest.fixture
def copy(mini_folder: Path, tmp_path: Path) -> Path:
    """The vocabulary's files, to be changed."""
    for file in FILES:
        shutil.copy(mini_folder / file, tmp_path)
    return tmp_path


def test_ids_are_those_of_openai_whisper(vocabulary: Vocabulary) -> None:
    theirs = openai_tokenizer(True)
    for name in ("sot", "eot", "transcribe", "translate", "no_speech", "no_timestamps"):
        assert getattr(vocabulary, name) == getattr(theirs, name), name
    assert vocabulary.timestamp_begin == theirs.timestamp_begin
    assert (vocabulary.num_timestamps, vocabulary.precision_s) == (1501, 0.02)
    by_id = zip(theirs.all_language_tokens, theirs.all_language_codes, strict=True)
    assert [(token, code) for code, token in vocabulary.languages.items()] == sorted(by_id)
    assert set(theirs.non_speech_tokens) < set(vocabulary.suppress_tokens)
    assert vocabulary.begin_suppress_tokens == (*theirs.encode(" "), theirs.eot)
    assert vocabulary.max_initial_timestamp_index == 50
    assert vocabulary.language_names["de"] == "german"


def test_an_english_only_vocabulary_names_no_language(english: Vocabulary) -> None:
    theirs = openai_tokenizer(False)
    assert (english.sot, english.eot) == (theirs.sot, theirs.eot)
    assert not english.multilingual
    assert english.language_names == {"en": "english"}
    assert english.prompt(DecodeOptions("en")) == (theirs.sot,)
    assert english.prompt(DecodeOptions(None, timestamps=False)) == (
        theirs.sot,
        theirs.no_timestamps,
    )


@pytest.mark.parametrize("task", ["transcribe", "translate"])
@pytest.mark.parametrize("timestamps", [True, False])
def test_prompts_are_those_of_openai_whisper(
    vocabulary: Vocabulary, task: str, timestamps: bool
) -> None:
    theirs = openai_tokenizer(True)
    expected = [theirs.sot, theirs.to_language_token("fr"), getattr(theirs, task)]
    expected += [] if timestamps else [theirs.no_timestamps]
    assert vocabulary.prompt(DecodeOptions("fr", task, timestamps=timestamps)) == tuple(expected)


@pytest.mark.parametrize(
    ("options", "param", "valid"),
    [
        (DecodeOptions("xx"), "language", "en, zh, de"),
        (DecodeOptions("en", "summarise"), "task", "transcribe, translate"),
    ],
)
def test_an_unknown_choice_names_the_valid_ones(
    vocabulary: Vocabulary, options: DecodeOptions, param: str, valid: str
) -> None:
    with pytest.raises(InvalidRequest, match=valid) as caught:
        vocabulary.prompt(options)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("options", "param"),
    [(DecodeOptions("de"), "language"), (DecodeOptions("en", "translate"), "task")],
)
def test_an_english_only_model_refuses_the_rest(
    english: Vocabulary, options: DecodeOptions, param: str
) -> None:
    with pytest.raises(InvalidRequest, match="English-only") as caught:
        english.prompt(options)
    assert caught.value.param == param


def test_a_prompt_needs_a_language(vocabulary: Vocabulary) -> None:
    with pytest.raises(ValueError, match="detected"):
        vocabulary.prompt(DecodeOptions(None))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("multilingual", [True, False])
def test_text_survives_encoding(
    vocabulary: Vocabulary, english: Vocabulary, text: str, multilingual: bool
) -> None:
    tokens = openai_tokenizer(multilingual).encode(text)
    assert (vocabulary if multilingual else english).decode(tokens) == text


def test_special_and_timestamp_tokens_are_no_text(vocabulary: Vocabulary) -> None:
    tokens = openai_tokenizer(True).encode(" one")
    around = [vocabulary.sot, 50_364, *tokens, 50_400, vocabulary.eot, 99_999]
    assert vocabulary.decode(around) == " one"


def spoken(vocabulary: Vocabulary, *parts: float | str) -> list[int]:
    """Tokens of seconds and texts."""
    tokens = []
    for part in parts:
        if isinstance(part, str):
            tokens += openai_tokenizer(True).encode(part)
        else:
            tokens.append(vocabulary.timestamp_begin + round(part / vocabulary.precision_s))
    return tokens


def told(pieces: list[Piece]) -> list[tuple[float | None, float | None, str]]:
    return [(piece.start_s, piece.end_s, piece.text) for piece in pieces]


@pytest.mark.parametrize(
    ("parts", "pieces"),
    [
        ((), []),
        ((" one",), [(None, None, " one")]),
        ((0.0, " one", 1.26), [(0.0, 1.26, " one")]),
        ((0.0, " one", 1.26, 1.3, " two", 30.0), [(0.0, 1.26, " one"), (1.3, 30.0, " two")]),
        ((0.0, " one", 2.0, 2.0, " two"), [(0.0, 2.0, " one"), (2.0, None, " two")]),
        ((" one", 2.0), [(None, 2.0, " one")]),
        ((0.0, " one", 2.0, " two", 3.0), [(0.0, 2.0, " one"), (None, 3.0, " two")]),
        ((0.0, 1.0), []),
        ((0.0, 1.0, " one", 2.0), [(1.0, 2.0, " one")]),
    ],
)
def test_pieces_lie_between_timestamps(
    vocabulary: Vocabulary,
    parts: tuple[float | str, ...],
    pieces: list[tuple[float | None, float | None, str]],
) -> None:
    assert told(vocabulary.split_text(spoken(vocabulary, *parts))) == pieces


def test_a_character_split_by_a_timestamp_stays_whole(vocabulary: Vocabulary) -> None:
    first, *rest = openai_tokenizer(True).encode("👋")
    assert rest
    tokens = [*spoken(vocabulary, 0.0, " hi"), first, *spoken(vocabulary, 1.0, 1.0), *rest]
    tokens += spoken(vocabulary, " there", 2.0)
    assert told(vocabulary.split_text(tokens)) == [(0.0, 1.0, " hi"), (1.0, 2.0, "👋 there")]


def test_a_character_cut_off_at_the_end_is_left_out(vocabulary: Vocabulary) -> None:
    tokens = [*spoken(vocabulary, 0.0, " hi"), openai_tokenizer(True).encode("👋")[0]]
    assert told(vocabulary.split_text(tokens)) == [(0.0, None, " hi")]
    assert vocabulary.decode(tokens) == " hi"


@given(tokens=st.lists(st.integers(0, 51_864), max_size=30))
def test_pieces_say_what_the_whole_says_without_broken_characters(
    vocabulary: Vocabulary, tokens: list[int]
) -> None:
    pieces = vocabulary.split_text(tokens)
    assert "".join(piece.text for piece in pieces) == vocabulary.decode(tokens)
    assert "\ufffd" not in vocabulary.decode(tokens)
    # Only what follows the last text belongs to no piece.
    owned = [token for piece in pieces for token in piece.tokens]
    assert owned == tokens[: len(owned)]
    assert vocabulary.decode(tokens[len(owned) :]) == ""


@pytest.mark.parametrize(
    ("parts", "pieces"),
    [
        ((0.0, " one", 1.26, 1.3, " two", 30.0), [(0.0, " one", 1.26), (1.3, " two", 30.0)]),
        ((0.0, " one", 2.0, " two"), [(0.0, " one", 2.0), (" two",)]),
        ((0.0, 1.0, " one", 2.0, 2.0), [(0.0, 1.0, " one", 2.0)]),
    ],
    ids=["whole", "no start", "stray times"],
)
def test_pieces_have_their_own_tokens(
    vocabulary: Vocabulary, parts: tuple[float | str, ...], pieces: list[tuple[float | str, ...]]
) -> None:
    split = vocabulary.split_text(spoken(vocabulary, *parts))
    assert [list(piece.tokens) for piece in split] == [spoken(vocabulary, *own) for own in pieces]


def test_both_forms_of_the_tokenizer_say_the_same(copy: Path, vocabulary: Vocabulary) -> None:
    (copy / "tokenizer.json").unlink()
    old = read(copy)
    assert old.text_bytes == vocabulary.text_bytes
    assert dict(old.languages) == dict(vocabulary.languages)
    assert (old.timestamp_begin, old.num_timestamps) == (50_364, 1501)


def test_an_older_tokenizer_has_nocaptions_and_no_timestamps(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    added = json.loads((copy / "added_tokens.json").read_text())
    older = {token: number for token, number in added.items() if number < 50_364}
    older["<|nocaptions|>"] = older.pop("<|nospeech|>")
    (copy / "added_tokens.json").write_text(json.dumps(older))
    vocabulary = read(copy)
    assert vocabulary.no_speech == 50_362
    assert (vocabulary.timestamp_begin, vocabulary.num_timestamps) == (50_364, 1501)


def test_without_a_generation_config_the_model_config_serves(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    config = {
        "suppress_tokens": [1, 2],
        "begin_suppress_tokens": [220, 50257],
        "forced_decoder_ids": [[1, 50259], [2, 50359], [3, 50363]],
    }
    vocabulary = read(copy, config)
    assert vocabulary.suppress_tokens == (1, 2)
    assert vocabulary.begin_suppress_tokens == (220, 50257)
    assert vocabulary.multilingual
    assert len(vocabulary.languages) == 99
    assert vocabulary.max_initial_timestamp_index is None
    assert not read(copy, {"forced_decoder_ids": [[1, 50363]]}).multilingual


def test_a_model_without_a_task_refuses_it(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    added = json.loads((copy / "added_tokens.json").read_text())
    del added["<|translate|>"]
    (copy / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(InvalidRequest, match=r"valid: transcribe$"):
        read(copy).prompt(DecodeOptions("en", "translate"))


def test_a_tokenizer_larger_than_the_model_is_refused(mini_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="belongs to another checkpoint"):
        read(mini_folder, vocab_size=50_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read"),
        ("[]", "JSON object"),
        ("{}", "not a byte-level BPE"),
        ('{"model": {"vocab": {"a": 0}}, "added_tokens": []}', "not a Whisper vocabulary"),
    ],
)
def test_a_bad_tokenizer_is_refused(copy: Path, content: str, message: str) -> None:
    (copy / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read(copy)
