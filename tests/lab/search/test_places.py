from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import ConfigError
from service.lab.material import Domain, Material, of_corpus
from service.lab.search.places import data_said, places_of
from tests.lab.recordings import corpus


def test_recordings_of_both_splits_in_the_order_of_the_search(tmp_path: Path) -> None:
    """Where noise has no split it is on both sides, and folders that nobody asked for stay out."""
    folders = of_corpus(corpus(tmp_path))
    folders["read"] = [replace(row, split="") for row in folders["read"]]
    folders["noise"] = [replace(row, split="") for row in folders["noise"][:1]]
    folders["other"] = folders["read"][:1]
    found = places_of(Material(folders), [Domain("read"), Domain("read", snr_db=5)], 0)
    assert list(found) == ["train", "test"]
    for split, some in found.items():
        assert [(p.split, p.domain, p.number) for p in some] == [
            (split, domain, number) for domain in ("read", "read@5dB") for number in range(3)
        ]
        assert [p.item.name for p in some[:3]] == [p.item.name for p in some[3:]]
        assert len({p.item.speaker for p in some}) == 1
    assert {p.item.name for p in found["train"]}.isdisjoint(p.item.name for p in found["test"])
    assert data_said(found)["test"] == (
        "the test split: read (3 recordings, 0.0083 h), read@5dB (3 recordings, 0.0083 h)"
    )


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    folders = of_corpus(corpus(tmp_path))
    folders["read"] = [replace(row, split="train") for row in folders["read"]]
    with pytest.raises(ConfigError, match="read has nothing of split test; it has: train"):
        places_of(Material(folders), [Domain("read")], 0)
