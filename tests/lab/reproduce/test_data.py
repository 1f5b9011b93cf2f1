from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from service.errors import ConfigError
from service.lab.manifest import read_manifest
from service.lab.material import Domain, Material, of_corpus
from service.lab.reproduce.eas.data import FULL, SINGLE, Role, Source, gather
from tests.lab.recordings import corpus, tone, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen utterances of 10 s of two speakers, two of them for training; noise; German."""
    folder = corpus(tmp_path_factory.mktemp("corpus"))
    manifest = folder / "manifest.tsv"
    rows = []
    for number in range(6, 14):
        write(folder / f"read/{number}.wav", tone(300 + 50 * number, 10))
        split = "train" if number > 11 else "test"
        rows.append(f"read/{number}.wav\t{split}\t10\ty\ten\tword {number}\tnone")
    write(folder / "deutsch/0.wav", tone(700, 10))
    rows.append("deutsch/0.wav\ttest\t10\tz\tde\twort\tnone")
    manifest.write_text(manifest.read_text() + "\n".join(rows) + "\n")
    return folder


@cache
def read(folder: Path) -> Material:
    """Decoded once for all tests."""
    return Material(of_corpus(folder))


def source(folder: Path, *others: str, levels: tuple[float, ...] = ()) -> Source:
    material = read(folder)
    domains = tuple(Domain(name) for name in ("read", *others))
    search = replace(material, split="train")
    return Source(material, domains, search, domains[0], levels, {"en"})


def test_what_is_chosen_on_is_not_what_is_reported_on(folder: Path) -> None:
    gathered = gather(source(folder), None)
    assert [(one.role, one.kind, len(one.items)) for one in gathered.sets] == [
        (Role.SEARCH, FULL, 1),
        (Role.HELD, FULL, 5),
        (Role.SEARCH, SINGLE, 3),
        (Role.HELD, SINGLE, 11),
    ]
    assert gathered.notes == ()
    assert len({one.name for one in gathered.sets}) == 4
    assert len({one.digest for one in gathered.sets}) == 4
    few = gather(source(folder), 2)
    assert [len(one.items) for one in few.sets] == [1, 2, 2, 2]


def test_rows_without_a_split_are_parted(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "manifest.tsv").read_text().splitlines()
    own = ["path\ttext\tspeaker"]
    own += [f"{folder / cells[0]}\t{cells[5]}\t{cells[3]}" for cells in map(_cells, lines[1:7])]
    (tmp_path / "mine.tsv").write_text("\n".join(own))
    material = Material({"mine": read_manifest(tmp_path / "mine.tsv")})
    mine = Domain("mine")
    asked = Source(material, (mine,), replace(material, split="train"), mine, (), {"en"})
    gathered = gather(asked, None)
    names = [{item.name for item in one.items} for one in gathered.sets if not one.full]
    assert [len(some) for some in names] == [3, 3]
    assert names[0].isdisjoint(names[1])
    (note,) = gathered.notes
    assert "every other recording" in note
    apart = replace(asked, search=replace(material, folders=of_corpus(folder), split="train"))
    assert gather(replace(apart, search_domain=Domain("read")), None).notes == ()


def _cells(line: str) -> list[str]:
    return line.split("\t")


def test_noise_is_mixed_into_what_is_reported_on(folder: Path) -> None:
    gathered = gather(source(folder, levels=(10.0, 0.0)), 2)
    (held,) = gathered.of(Role.HELD, full=True)
    ten, none = gathered.of(Role.NOISE)
    assert (ten.name, none.name) == (
        "read, full windows, noise at 10 dB",
        "read, full windows, noise at 0 dB",
    )
    assert [item.name for item in ten.items] == [item.name for item in held.items]
    assert len({held.digest, ten.digest, none.digest}) == 3


def test_a_language_that_the_model_does_not_know_is_told(folder: Path) -> None:
    gathered = gather(source(folder, "deutsch"), None)
    assert gathered.of(Role.OTHER) == []
    assert gathered.notes == ("deutsch was left out: the model does not know de.",)
    knows = gather(replace(source(folder, "deutsch"), languages={"en", "de"}), None)
    (german,) = knows.of(Role.OTHER)
    assert (german.kind, len(german.items)) == (SINGLE, 1)


def test_without_full_windows(folder: Path) -> None:
    short = source(folder)
    rows = [replace(row, speaker=row.name) for row in short.material.folders["read"]]
    folders = {**short.material.folders, "read": rows}
    alone = replace(
        short,
        material=replace(short.material, folders=folders),
        search=replace(short.search, folders=folders),
        levels=(10.0,),
    )
    gathered = gather(alone, 2)
    assert [one.kind for one in gathered.sets] == [SINGLE] * 3
    assert "too little of each speaker" in gathered.notes[0]


def test_nothing_to_read(folder: Path) -> None:
    with pytest.raises(ConfigError, match="noise: nothing is said in it"):
        gather(source(folder, "noise"), None)
    with pytest.raises(ConfigError, match="unknown domain 'spoken'"):
        gather(replace(source(folder), domains=(Domain("spoken"),)), None)


def test_the_lists_of_librispeech_are_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chapter = tmp_path / "LibriSpeech" / "test-clean" / "61" / "70968"
    write(chapter / "61-70968-0000.flac", tone(300, 1))
    (chapter / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN A CONFUSED COMPLAINT\n")
    text = (Path(__file__).parents[3] / "docs" / "reproduce.md").read_text()
    code = text.partition("<<'LISTS'\n")[2].partition("\nLISTS\n")[0]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    (row,) = read_manifest(tmp_path / "LibriSpeech" / "test-clean.tsv")
    assert (row.text, row.speaker) == ("HE BEGAN A CONFUSED COMPLAINT", "61")
