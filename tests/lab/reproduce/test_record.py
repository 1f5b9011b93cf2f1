from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.lab.outcomes import ItemOutcome
from service.lab.packing import Item
from service.lab.reproduce.record import Record, digest, outcomes_from_json, outcomes_to_json
from service.text.wer import Errors

KEY = {"model": {"name": "base"}, "profile": ("a", 0.5), "seed": 0}


def test_a_part_is_found_by_all_that_it_depends_on(tmp_path: Path) -> None:
    Record(tmp_path / "parts").write(KEY, {"words": 7})
    again = Record(tmp_path / "parts")
    assert again.read(dict(reversed(KEY.items()))) == {"words": 7}
    assert again.read({**KEY, "seed": 1}) is None
    assert again.read({**KEY, "profile": ("a", 0.6)}) is None
    assert [path.suffix for path in (tmp_path / "parts").iterdir()] == [".json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}', '{"key": {"seed": 1}, "found": 2}'])
def test_what_cannot_be_read_is_not_there(tmp_path: Path, text: str) -> None:
    record = Record(tmp_path)
    record.write(KEY, 7)
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert record.read(KEY) is None
    record.write(KEY, 8)
    assert record.read(KEY) == 8


def test_a_digest_is_of_what_is_heard_and_said() -> None:
    item = Item("a", np.arange(4, dtype=np.int16), "one", "en", "x")
    same = digest([replace(item, pcm=item.pcm.copy())])
    assert same == digest([item])
    others = [
        [item, item],
        [replace(item, pcm=item.pcm + np.int16(1))],
        [replace(item, text="two")],
        [replace(item, language="de")],
    ]
    assert len({same, *(digest(other) for other in others)}) == 5


def test_outcomes_come_back_without_their_texts() -> None:
    again = Counter({"looped": 2})
    one = ItemOutcome(Errors(1, 2, 3, 9), 8, True, False, True, False, again, 1, "secret")
    written = outcomes_to_json([one])
    assert "secret" not in str(written)
    assert outcomes_from_json(written) == (replace(one, text=""),)
