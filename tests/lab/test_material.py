from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.errors import ConfigError
from service.lab.material import Domain, Material, of_corpus, parse_domain
from tests.lab.recordings import corpus, tone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"))


def material(folder: Path, **more: object) -> Material:
    return Material(of_corpus(folder), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("german", Domain("german")),
        ("german-packed", Domain("german", packed=True)),
        ("my-own@5dB", Domain("my-own", snr_db=5)),
        ("my-own-packed@-2.5dB", Domain("my-own", packed=True, snr_db=-2.5)),
    ],
)
def test_a_domain_has_a_name(name: str, domain: Domain) -> None:
    assert parse_domain(name) == domain
    assert domain.name == name


@pytest.mark.parametrize("name", ["", "german@", "german@10", "noise-packed", "noise@10dB"])
def test_what_is_no_domain(name: str) -> None:
    with pytest.raises(ConfigError, match="domain"):
        parse_domain(name)


def test_recordings_are_those_of_the_split(folder: Path) -> None:
    items = material(folder).items(Domain("read"))
    assert [item.text for item in items] == [f"word {n}" for n in range(5)]
    assert np.abs(items[2].pcm - tone(700, 10).astype(int)).max() <= 1
    assert [i.text for i in material(folder, split="train").items(Domain("read"))] == ["word 5"]
    assert len(material(folder, split="all").items(Domain("read"))) == 6


def test_packed_and_limited(folder: Path) -> None:
    items = material(folder).items(parse_domain("read-packed"))
    assert [item.text for item in items] == ["word 0 word 2", "word 1 word 3"]
    assert [item.seconds for item in items] == [20.3, 20.3]
    assert len(material(folder, limit=1).items(parse_domain("read-packed"))) == 1


def test_noise_is_that_of_the_corpus_at_its_ratio(folder: Path) -> None:
    clean = material(folder).items(Domain("read"))
    noisy = material(folder).items(parse_domain("read@5dB"))
    assert [item.text for item in noisy] == [item.text for item in clean]
    for before, after in zip(clean, noisy, strict=True):
        speech = before.pcm.astype(float)
        noise = after.pcm - speech
        ratio = np.square(speech).mean() / np.square(noise).mean()
        assert 10 * np.log10(ratio) == pytest.approx(5, abs=0.05)


def test_where_nothing_is_said(folder: Path) -> None:
    items = material(folder).items(Domain("noise"))
    assert {item.text for item in items} == {""}
    assert [(item.name, item.seconds) for item in items] == [
        ("noise/fan.wav from 0 s", 30),
        ("noise/fan.wav from 30 s", 10),
        ("noise/room.wav from 0 s", 3),
        ("silence", 30),
        ("hiss at -80 dB", 30),
        ("hiss at -60 dB", 30),
    ]
    levels = [20 * np.log10(item.pcm.std() / 32768 + 1e-9) for item in items[-2:]]
    assert levels == pytest.approx([-80, -60], abs=0.5)


@pytest.mark.parametrize(
    ("name", "split", "said"),
    [
        ("spoken", "test", "there are noise, read"),
        ("read-packed", "train", "too little"),
    ],
)
def test_what_is_not_there(folder: Path, name: str, split: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        material(folder, split=split).items(parse_domain(name))


def test_a_split_that_is_not_there(folder: Path) -> None:
    rows = of_corpus(folder)
    rows["read"] = [row for row in rows["read"] if row.split == "test"]
    with pytest.raises(ConfigError, match="nothing of split train; it has: test"):
        Material(rows, "train").items(Domain("read"))
    del rows["noise"]
    with pytest.raises(ConfigError, match="no noise"):
        Material(rows).items(Domain("read", snr_db=5))


def test_a_file_without_sound(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.wav").write_bytes(b"none")
    (tmp_path / "manifest.tsv").write_text("path\ttranscript\na/b.wav\tone\n")
    with pytest.raises(ConfigError, match=r"a/b.wav: "):
        material(tmp_path).items(Domain("a"))
    with pytest.raises(ConfigError, match="give the corpus folder"):
        of_corpus(folder / "read")
