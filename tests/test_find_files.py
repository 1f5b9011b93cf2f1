"""Which recordings paths mean."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.audio.suffixes import AUDIO_SUFFIXES
from service.find_files import OUTPUT_SUFFIXES, find

NOBODY = 65534


def write(path: Path, content: bytes = b"?") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(*paths: Path) -> list[str]:
    return [str(source.relative) for source in find(paths).sources]


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_every_suffix_is_found_in_either_case(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"A{suffix.upper()}")
    write(tmp_path / f"b{suffix}")
    assert names(tmp_path) == [f"A{suffix.upper()}", f"b{suffix}"]


@pytest.mark.parametrize(
    "companion",
    [
        *("._a.wav", ".DS_Store", ".hidden.wav", ".Trash/a.wav", "deep/._b.mp3"),
        *("__MACOSX/a.wav", "@eaDir/a.wav/SYNOAUDIO.mp3", "$RECYCLE.BIN/b.wav", "Thumbs.db"),
        *("a.wav.txt", "a.wav.srt", "a.wav.verbose.json"),
    ],
)
def test_companions_are_passed_over_without_a_word(tmp_path: Path, companion: str) -> None:
    write(tmp_path / "a.wav")
    write(tmp_path / companion)
    found = find([tmp_path])
    assert [str(source.relative) for source in found.sources] == ["a.wav"]
    assert found.problems == ()
    assert not found.passed_over


def test_a_hidden_folder_that_is_named_is_looked_into(tmp_path: Path) -> None:
    write(tmp_path / ".recordings/a.wav")
    assert names(tmp_path / ".recordings") == ["a.wav"]


def test_other_files_are_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("a.wav", "notes.txt", "deep/more.TXT", "scan.pdf", "README"):
        write(tmp_path / name)
    assert find([tmp_path]).passed_over == {".txt": 2, ".pdf": 1, "no suffix": 1}


def test_outputs_of_every_format_are_known(tmp_path: Path) -> None:
    for suffix in OUTPUT_SUFFIXES.values():
        write(tmp_path / f"a.wav{suffix}")
    assert not find([tmp_path]).passed_over


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    write(tmp_path / "in/deep/a.wav")
    (tmp_path / "in/deep/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/deep/self").symlink_to("self")
    assert names(tmp_path / "in") == ["deep/a.wav"]


def test_a_folder_that_is_linked_to_is_looked_into_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/a.wav")
    (tmp_path / "in").mkdir()
    for link in ("one", "two"):
        (tmp_path / "in" / link).symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "in") == ["one/a.wav"]


def test_what_is_in_the_folder_itself_goes_by_its_own_name(tmp_path: Path) -> None:
    write(tmp_path / "z/a.wav")
    (tmp_path / "a").symlink_to("z")
    assert names(tmp_path) == ["z/a.wav"]


def test_a_link_to_a_recording_that_is_gone_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.wav").symlink_to("gone.wav")
    assert names(tmp_path) == ["a.wav"]


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    (tmp_path / "b.wav").symlink_to("a.wav")
    assert names(tmp_path) == []


@pytest.fixture
def ordinary_rights() -> Iterator[Path]:
    """A folder, and no superuser's rights to it: they open every folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        user = os.geteuid()
        os.seteuid(user or NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


def test_a_folder_that_cannot_be_read_is_named(ordinary_rights: Path) -> None:
    write(ordinary_rights / "open/a.wav")
    write(ordinary_rights / "shut/b.wav")
    (ordinary_rights / "shut").chmod(0)
    found = find([ordinary_rights])
    assert [str(source.relative) for source in found.sources] == ["open/a.wav"]
    assert found.problems == (f"{ordinary_rights / 'shut'}: Permission denied",)
    alone = find([ordinary_rights / "shut"])
    assert alone.problems == found.problems
    (ordinary_rights / "shut").chmod(0o700)


def test_what_is_not_there_and_what_is_empty_are_told_apart(tmp_path: Path) -> None:
    assert find([tmp_path / "a.wav", tmp_path]).problems == (
        f"{tmp_path / 'a.wav'}: no such file or folder",
        f"{tmp_path}: a folder without audio",
    )


def test_a_name_that_is_no_text_can_be_printed(tmp_path: Path) -> None:
    write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")))
    (source,) = find([tmp_path]).sources
    assert source.name == f"{tmp_path}/\\xff.wav"
    assert source.path.read_bytes() == b"?"
