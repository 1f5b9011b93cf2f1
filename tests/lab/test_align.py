from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer

from service.lab.align import align, best_path, load_spans, word_spans
from service.lab.initial import new_params
from service.lab.recipe import Material
from service.lab.targets import CHARACTERS, to_characters
from service.model.weights import Dims
from service.types import WINDOW_SAMPLES

from .conftest import recipe_of, speech_set


def spoken(text: str, starts: list[int], num_frames: int) -> npt.NDArray[np.float32]:
    """Log-probabilities that say each character in its frame, and the blank elsewhere."""
    certain = np.full((num_frames, len(CHARACTERS) + 1), 1e-4, np.float32)
    certain[:, 0] = 1
    for label, frame in zip(to_characters(text), starts, strict=True):
        certain[frame] = 1e-4
        certain[frame, label] = 1
    logprobs: npt.NDArray[np.float32] = np.log(certain / certain.sum(1, keepdims=True))
    return logprobs


def test_the_path_goes_where_the_characters_are() -> None:
    starts = [3, 5, 6, 9, 14, 16, 20]
    assert best_path(spoken("one two", starts, 30), to_characters("one two")) == starts


def test_a_sentence_longer_than_a_byte_counts_finds_its_way_too() -> None:
    text = "she sells sea shells by the sea shore and the shells she sells are surely hers" * 2
    starts = [2 * i for i in range(len(text))]
    assert best_path(spoken(text, starts, 2 * len(text)), to_characters(text)) == starts


def test_of_a_recording_longer_than_a_window_its_beginning_is_aligned(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    long = speech_set(tmp_path / "long", ["one two " * 60], voices=1)
    assert long.lengths[0] > WINDOW_SAMPLES
    dims = Dims(80, 1500, 64, 1, 1, 1, 1, tokenizer.get_vocab_size(), 448)
    align(new_params(dims, 0), dims, long, tmp_path / "spans.npy")
    (spans,) = load_spans(tmp_path / "spans.npy", long)
    assert len(spans) == 120
    assert spans[-1][1] <= 30.0


def test_a_doubled_character_is_found_twice() -> None:
    assert best_path(spoken("ee", [4, 8], 12), to_characters("ee")) == [4, 8]


def test_words_meet_half_way_and_reach_no_further_than_they_may() -> None:
    spans = word_spans(spoken("one two", [10, 12, 14, 16, 20, 22, 24], 100), "one two")
    assert spans[0] == pytest.approx((0.05, 0.35))
    assert spans[1] == pytest.approx((0.35, 0.65))


def test_too_short_a_sound_is_shared_out() -> None:
    spans = word_spans(spoken("", [], 3), "seven seven")
    assert len(spans) == 2
    assert all(0 <= start <= end <= 0.06 + 1e-6 for start, end in spans)


def test_the_spans_of_a_set_are_kept_and_used(
    speech: Material, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    dims = Dims(80, 1500, 64, 1, 1, 1, 1, tokenizer.get_vocab_size(), 448)
    align(new_params(dims, 0), dims, speech.synthetic, tmp_path / "spans.npy")
    spans = load_spans(tmp_path / "spans.npy", speech.synthetic)
    assert [len(s) for s in spans] == [len(t.split()) for t in speech.synthetic.texts]
    for at, length in zip(spans, speech.synthetic.lengths, strict=True):
        flat = [time for span in at for time in span]
        assert flat == sorted(flat)
        assert 0 <= flat[0] <= flat[-1] <= length / 16_000 + 1e-6
    recipe = recipe_of(speech, tokenizer, num_steps=2000, seconds=6, seed=0, spans=spans)
    assert recipe[1500].mel_BFT.isfinite().all()
