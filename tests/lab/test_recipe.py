"""The whole recipe from a corpus folder to a checkpoint that answers, in a hundred small steps."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from service.errors import ConfigError
from service.lab import corpus, recipe
from service.lab.evaluate import transcribe
from service.lab.recipe import DOMAINS, Plan
from service.lab.sentences import plain
from service.lab.vocabulary import DIGITS
from service.model.load import load_model
from service.profiles import BUILT_IN
from service.types import Samples

from .conftest import chord

SENTENCES = ("one day they all went home", "it was nine o'clock", "She said: \u201cGo on.\u201d")


def corpus_folder(folder: Path) -> Path:
    """A corpus with every kind of recording that the recipe asks for."""
    spoken = [("digits", digit, voice) for digit in DIGITS for voice in range(2)]
    spoken += [("synthetic", text, 3) for text in ("one two", "three four five", *DIGITS)]
    spoken += [(name, text, 4) for name in recipe.REAL_SETS for text in SENTENCES]
    spoken += [("sentences", text, 5) for text in SENTENCES]
    spoken.append(("noise", "", 6))
    with (_made(folder) / "manifest.tsv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
        rows.writerow(["path", "split", "speaker", "transcript"])
        for number, (kind, text, voice) in enumerate(spoken):
            path = f"{kind}/{number}.wav"
            pcm = chord(text or "zero " * 8, voice)
            soundfile.write(_made(folder / kind) / f"{number}.wav", pcm, 16_000)
            rows.writerow([path, "train", f"v{voice}", text])
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    books = _made(tmp_path / "text")
    (books / "a-book.txt").write_text("\n".join(SENTENCES))
    whole = Plan(
        corpus=corpus_folder(tmp_path / "corpus"),
        text=books,
        folder=tmp_path / "out",
        num_steps=100,
        batch_seconds=1.5,
        workers=0,
    )
    # What the synthesisers would say, so that the test needs none of them.
    for name in ("synthetic", "sentences"):
        corpus.prepare(
            whole.corpus,
            whole.folder / "data" / name,
            lambda row, name=name: row["path"].startswith(f"{name}/"),  # type: ignore[misc]
            plain,
        )
    return whole


def losses(plan: Plan) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.loadtxt(plan.folder / "run" / "curve.tsv", delimiter="\t")[:, 1:3]


def test_a_hundred_steps_make_a_checkpoint_that_answers(plan: Plan) -> None:
    folder = recipe.run(plan)
    ctc, attention = losses(plan).T
    assert len(ctc) == 100
    assert ctc[-20:].mean() < 0.7 * ctc[:5].mean()
    assert attention[-20:].mean() < 0.7 * attention[:5].mean()
    model = load_model(str(folder))
    assert "digits" in model.info.limits
    sound: Samples = chord("one two", 0).astype(np.float32) / np.float32(32768)
    assert len(list(transcribe(model, [sound], BUILT_IN["fast"]))) == 1


def test_a_run_goes_on_from_its_export_with_a_ctc_head_fitted(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "HEAD_STEPS", 5)
    first = recipe.run(replace(plan, num_steps=10))
    second = replace(plan, folder=plan.folder.parent / "on", start=first, first_step=10)
    (second.folder).mkdir()
    (plan.folder / "data").rename(second.folder / "data")
    recipe.run(replace(second, num_steps=14))
    steps = np.loadtxt(second.folder / "run" / "curve.tsv", delimiter="\t")[:, 0]
    assert steps.tolist() == [11, 12, 13, 14]


def test_english_learns_sentences_and_digits_together(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(DOMAINS["english"], d_model=64, heads=1, encoder_layers=6, decoder_layers=1)
    monkeypatch.setitem(DOMAINS, "english", small)
    folder = recipe.run(replace(plan, domain="english", num_steps=4))
    assert "ordinary English" in load_model(str(folder)).info.limits
    assert np.isfinite(losses(plan)).all()


def test_without_books_there_is_no_vocabulary(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \*\.txt to learn a vocabulary from"):
        recipe.run(replace(plan, text=_made(tmp_path / "empty")))
