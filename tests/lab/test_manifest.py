from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.errors import ConfigError
from service.lab.manifest import read_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("a.wav", "sub/b.wav"):
        (tmp_path / name).touch()
    return tmp_path


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_table_with_a_header_in_any_order(folder: Path) -> None:
    path = write(
        folder / "m.tsv",
        "speaker\ttranscript\tpath\tlanguage\tunknown",
        'x\tHe said "no".\ta.wav\ten\t1',
        "",
        "\t\tsub/b.wav\tde\t2",
    )
    first, second = read_manifest(path)
    assert (first.text, first.speaker, first.language) == ('He said "no".', "x", "en")
    assert (second.path, second.name) == (folder / "sub/b.wav", "sub/b.wav")
    assert (second.text, second.language, second.split) == ("", "de", "")


def test_json_lines_of_either_naming(folder: Path) -> None:
    path = write(
        folder / "m.jsonl",
        json.dumps({"audio_filepath": "a.wav", "text": "one", "duration": 1.5}),
        json.dumps({"path": "sub/b.wav", "transcript": "zwei", "language": "de", "speaker": 7}),
    )
    first, second = read_manifest(path, language="fr")
    assert (first.text, first.language, first.speaker) == ("one", "fr", "")
    assert (second.text, second.language, second.speaker) == ("zwei", "de", "7")


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("m.tsv", ["path\tnote", "a.wav\tx"], "line 1: the header needs a column transcript"),
        ("m.tsv", ["a.wav\tone"], "line 1: the header needs a column path"),
        ("m.tsv", [], "line 1: the header"),
        ("m.tsv", ["path\ttext"], "lists no recordings"),
        ("m.tsv", ["path\ttext", "a.wav\tone", "a.wav"], "line 3: 1 cells, but the header has 2"),
        ("m.tsv", ["path\ttext", "none.wav\tone"], "line 2: no such file"),
        ("m.jsonl", ['{"path": "a.wav", "text": "x"}', "{"], "line 2: not JSON"),
        ("m.jsonl", ["[1]"], "line 1: not a JSON object"),
        ("m.jsonl", ['{"text": "x"}'], "line 1: no path or audio_filepath"),
        ("m.jsonl", ['{"path": "a.wav"}'], "line 1: no transcript or text"),
        ("m.jsonl", ['{"path": "a.wav", "text": ["x"]}'], "line 1: transcript must be text"),
        ("m.jsonl", ['{"path": "a.wav", "text": "x", "offset": 2}'], "line 1: a part of a file"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(
    folder: Path, name: str, lines: list[str], said: str
) -> None:
    path = write(folder / name, *lines) if lines else folder / name
    path.touch()
    with pytest.raises(ConfigError, match=said):
        read_manifest(path)


def test_a_manifest_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_manifest(folder / "none.tsv")
