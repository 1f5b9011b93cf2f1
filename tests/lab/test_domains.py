from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from service.cli import main
from service.errors import ConfigError
from service.lab.domains import DOMAINS, Places
from service.lab.evaluate import Score, grid
from service.lab.sentences import HELD_OUT_BOOK
from service.lab.synthesisers import missing_engines
from service.lab.vocabulary import DIGITS

from .conftest import chord

needs_engines = pytest.mark.skipif(
    bool(missing_engines()),
    reason=f"speech synthesis is not installed here: {', '.join(missing_engines())}",
)
RECORDINGS = [
    *(("digits", "test", digit) for digit in DIGITS),
    ("digits", "train", "one"),
    ("librispeech", "test", "ONE, TWO"),
    ("librispeech", "test", "one " * 120),
    ("noise", "train", ""),
    ("noise", "test", ""),
]


def write_corpus(folder: Path, recordings: list[tuple[str, str, str]]) -> Path:
    folder.mkdir()
    with (folder / "manifest.tsv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter="\t")
        rows.writerow(["path", "split", "speaker", "transcript"])
        for number, (kind, split, text) in enumerate(recordings):
            pcm = chord(text.lower().replace(",", "") or "zero " * 110, 1)
            soundfile.write(folder / f"{kind}-{number}.wav", pcm, 16_000)
            (folder / kind).mkdir(exist_ok=True)
            (folder / f"{kind}-{number}.wav").rename(folder / kind / f"{number}.wav")
            rows.writerow([f"{kind}/{number}.wav", split, "v", text])
    return folder


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(write_corpus(tmp_path / "corpus", RECORDINGS), tmp_path / "data", 3)


def test_digits_are_strings_of_the_test_split(places: Places) -> None:
    strings = DOMAINS["digits"].utterances(places)
    assert len(strings) == 3
    assert all(3 <= len(each.text.split()) <= 10 for each in strings)


def test_paused_digits_are_the_same_strings_together(places: Places) -> None:
    strings, paused = DOMAINS["digits"].utterances(places), DOMAINS["paused"].utterances(places)
    assert " ".join(u.text for u in paused) == " ".join(u.text for u in strings)
    assert len(paused) < len(strings)


def test_read_speech_is_what_fits_a_window_with_plain_transcripts(places: Places) -> None:
    assert [each.text for each in DOMAINS["librispeech"].utterances(places)] == ["one two"]


def test_of_many_recordings_some_of_every_part_are_taken(places: Places, tmp_path: Path) -> None:
    said = [DIGITS[i] for i in range(8)]
    corpus = write_corpus(tmp_path / "many", [("librispeech", "test", word) for word in said])
    some = DOMAINS["librispeech"].utterances(Places(corpus, places.data, 3))
    assert [each.text for each in some] == [said[0], said[2], said[5]]
    every = DOMAINS["librispeech"].utterances(Places(corpus, places.data, 30))
    assert [each.text for each in every] == said


def test_noise_of_both_splits_is_cut_into_windows(places: Places) -> None:
    lengths = [len(each.samples) / 16_000 for each in DOMAINS["noise"].utterances(places)]
    assert lengths == pytest.approx([30, 3, 30, 3])


def test_another_corpus_is_not_mistaken_for_the_one_before(places: Places, tmp_path: Path) -> None:
    DOMAINS["digits"].utterances(places)
    other = write_corpus(tmp_path / "other", [("digits", "test", "nine")])
    strings = DOMAINS["digits"].utterances(Places(other, places.data, 3))
    assert {word for each in strings for word in each.text.split()} == {"nine"}


@needs_engines
def test_another_number_of_strings_is_said_anew(places: Places) -> None:
    for count in (2, 3):
        some = Places(places.corpus, places.data, count)
        assert len(DOMAINS["synthetic"].utterances(some)) == count


@needs_engines
def test_other_books_are_not_mistaken_for_those_before(places: Places, tmp_path: Path) -> None:
    for said in ("zebra", "walrus"):
        books = tmp_path / said
        books.mkdir()
        (books / f"{HELD_OUT_BOOK}.txt").write_text(f"{said} {said} {said}.")
        sentences = DOMAINS["sentences"].utterances(replace(places, text=books))
        assert any(said in each.text for each in sentences)


def test_sentences_need_books(places: Places) -> None:
    with pytest.raises(ConfigError, match="--text"):
        DOMAINS["sentences"].utterances(places)


def test_a_grid_has_every_layer_and_sparsity() -> None:
    profiles = grid((1, 2), (0, 0.5), "stride")
    assert [(p.layer, p.sparsity, p.selection) for p in profiles] == [
        (1, 0, "stride"),
        (1, 0.5, "stride"),
        (2, 0, "stride"),
        (2, 0.5, "stride"),
    ]


def test_where_nothing_is_said_a_score_counts_who_speaks() -> None:
    assert str(Score(errors=5, words=0, utterances=8, invented=2)) == "2 of 8"
    assert str(Score(errors=1, words=8, utterances=2)) == "12.5%"


@pytest.mark.model
def test_evaluate_prints_a_row_for_each_domain_and_dense_once(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--corpus", str(places.corpus), "--data", str(places.data), "--strings", "1"]
    assert main(["evaluate", *given, "--domains", "digits,noise", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert {title: set(row) for title, row in scores.items()} == {
        "connected digits, unseen real speaker": {"dense", "balanced", "fast"},
        "noise, windows with text": {"dense", "balanced", "fast"},
    }
    assert main(["evaluate", *given, "--domains", "digits", "--grid"]) == 0
    _, head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.count("|") == 7
    assert len(rows) == 4
    assert len({row.split("|")[2] for row in rows}) == 1


def test_evaluate_names_the_domains_there_are(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--corpus", str(places.corpus), "--domains", "music"]) == 2
    assert "use digits, paused, synthetic, sentences" in capsys.readouterr().err
