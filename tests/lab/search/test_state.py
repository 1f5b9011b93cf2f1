from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import ConfigError
from service.lab.outcomes import ItemOutcome
from service.lab.search.state import FILE, Identity, State, digest, recorded_dtype
from service.lab.search.trials import Trial, from_record, to_record
from service.text.wer import Errors
from tests.lab.search.standings import places

ONE = Identity("base 12ab cpu", "int8", "d1", "s1", "served", 0)
PLACES = places("train", 3)
TRIAL = Trial(
    ItemOutcome(Errors(1, 2, 3, 40), 38, True, False, True, False, Counter(doubt=2), 1, ""),
    2,
    3000,
    1500,
    77,
)


def written(folder: Path, number: int = 2) -> Path:
    with State(folder, ONE) as state:
        for place in PLACES[:number]:
            state.add_trial("a", "first", place, TRIAL)
    return folder / FILE


def test_a_trial_is_read_as_it_was_written() -> None:
    assert from_record(json.loads(json.dumps(to_record(TRIAL)))) == TRIAL


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    with State(tmp_path / "new" / "folder", ONE) as state:
        assert state.trial("a", PLACES[0]) is None
        assert state.pace_s is None
        state.add_trial("a", "first", PLACES[0], TRIAL)
        state.add_round({"read": {"dense": 2.0, "a": 1.0}})
        state.add_pace(0.25)
    with State(tmp_path / "new" / "folder", ONE) as state:
        assert state.trial("a", PLACES[0]) == TRIAL
        assert state.trial("a", PLACES[1]) is None
        assert state.trial("b", PLACES[0]) is None
        assert state.rounds(["dense", "a"]) == [{"read": {"dense": 2.0, "a": 1.0}}]
        assert state.rounds(["dense", "b"]) == []
        assert (state.num_trials, state.pace_s) == (1, 0.25)


def test_an_answer_is_on_disk_before_the_next(tmp_path: Path) -> None:
    with State(tmp_path, ONE) as state:
        for number, place in enumerate(PLACES, start=1):
            state.add_trial("a", "first", place, TRIAL)
            assert (tmp_path / FILE).read_bytes().count(b"\n") == 1 + number


@pytest.mark.parametrize("length", [1, 30, -1])
def test_a_line_that_was_torn_counts_for_nothing(tmp_path: Path, length: int) -> None:
    file = written(tmp_path)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]) + lines[-1][:length])
    with State(tmp_path, ONE) as state:
        assert state.num_trials == 1
        state.add_trial("a", "first", PLACES[1], TRIAL)
    with State(tmp_path, ONE) as state:
        assert state.num_trials == 2
    assert file.read_bytes() == b"".join(lines)


def test_a_first_line_that_was_torn_is_a_new_search(tmp_path: Path) -> None:
    file = written(tmp_path, 0)
    whole = file.read_bytes()
    file.write_bytes(whole[:20])
    with State(tmp_path, replace(ONE, seed=3)):
        pass
    assert json.loads(file.read_text())["seed"] == 3


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (replace(ONE, model="tiny"), "another model, .*base 12ab cpu, not tiny"),
        (replace(ONE, dtype="float32"), r"another type \(int8, not float32\)"),
        (replace(ONE, data="d2"), "other recordings"),
        (replace(ONE, space="s2"), "another space"),
        (replace(ONE, how="raw"), "another way"),
        (replace(ONE, seed=1), r"another seed \(0, not 1\)"),
    ],
)
def test_the_state_of_another_search_is_refused(tmp_path: Path, other: Identity, says: str) -> None:
    before = written(tmp_path).read_bytes()
    with (
        pytest.raises(ConfigError, match=f"is of .*{says}.*use another folder"),
        State(tmp_path, other),
    ):
        pass
    assert (tmp_path / FILE).read_bytes() == before


@pytest.mark.parametrize("line", [b"{}", b"not json", b'{"candidate": "a", "item": "x"}', b"3"])
@pytest.mark.parametrize("number", [0, 1])
def test_what_a_search_does_not_write_is_refused(tmp_path: Path, line: bytes, number: int) -> None:
    file = written(tmp_path)
    lines = file.read_bytes().splitlines()
    lines[number] = line
    file.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(ConfigError, match=f"line {number + 1}: not what"), State(tmp_path, ONE):
        pass


def test_two_searches_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with (
        State(tmp_path, ONE),
        pytest.raises(ConfigError, match="a search is going on there"),
        State(tmp_path, ONE),
    ):
        pass
    with State(tmp_path, ONE):
        pass


def test_who_goes_on_with_a_search_can_ask_for_its_type(tmp_path: Path) -> None:
    assert recorded_dtype(tmp_path / "none") is None
    file = written(tmp_path)
    assert recorded_dtype(tmp_path) == "int8"
    for text in ("", "{", "3", "{}"):
        file.write_text(text)
        assert recorded_dtype(tmp_path) is None


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--state .*file"), State(tmp_path / "file", ONE):
        pass


def test_a_digest_knows_where_parts_end() -> None:
    assert digest("ab", "c") == digest(b"ab", "c") != digest("a", "bc")
