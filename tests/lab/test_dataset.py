from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import WhisperFeatureExtractor

from service.audio.mel import log_mel
from service.lab.curriculum import Mix
from service.lab.dataset import PACKED_S, Recipe, TrainingBatch, log_mel_of
from service.lab.recipe import Material
from service.lab.sources import Phrase, Utterance
from service.lab.targets import IGNORE, to_characters
from service.types import WINDOW_SAMPLES

from .conftest import recipe_of

LONG = 5_000  # a step of the last phase, where whole windows are drawn
PACKED = (Mix(math.inf, 0.0, most_words=10, perturbed=0.3, packed_share=1.0, dropped=0.5),)

(TICK,) = to_characters("q")  # which no digit is spelled with


class Ticks:
    """Says "q" and nothing else."""

    def draw(self, rng: np.random.Generator, least: int, most: int) -> Utterance:
        phrase = Phrase(("q",), 0.0, 0.2, ((0.0, 0.2),))
        return Utterance(rng.standard_normal(3_200).astype(np.float32), (phrase,))


def with_ticks(mix: Mix, speech: Material, tokenizer: Tokenizer, num_steps: int) -> Recipe:
    """Batches of one mix in which every sentence is a "q"."""
    return recipe_of(
        speech,
        tokenizer,
        num_steps=num_steps,
        seconds=30,
        seed=3,
        curriculum=(mix,),
        sentences=Ticks(),
    )


@pytest.fixture
def recipe(speech: Material, tokenizer: Tokenizer) -> Recipe:
    return recipe_of(speech, tokenizer, num_steps=10_000, seconds=6, seed=3)


@pytest.mark.parametrize("step", [0, 1, 1000, LONG])
def test_a_batch_is_the_same_however_often_it_is_asked_for(recipe: Recipe, step: int) -> None:
    once, again = recipe[step], recipe[step]
    assert torch.equal(once.mel_BFT, again.mel_BFT)
    assert torch.equal(once.characters, again.characters)
    assert not torch.equal(once.mel_BFT[0, :, :40], recipe[step + 1].mel_BFT[0, :, :40])


def test_targets_are_the_inputs_one_step_on(recipe: Recipe) -> None:
    batch = recipe[0]
    for inputs, targets in zip(batch.inputs_BN, batch.targets_BN, strict=True):
        spoken = int((targets != IGNORE).sum())
        assert inputs[0] == recipe.tokens.start
        assert targets[spoken - 1] == recipe.tokens.end
        assert torch.equal(inputs[2:spoken], targets[1 : spoken - 1])
        assert targets[0] in (recipe.tokens.language, recipe.tokens.no_speech)


def test_noise_alone_is_no_speech_and_has_no_characters(recipe: Recipe) -> None:
    seen = set()
    for step in range(60):
        batch = recipe[step]
        for targets, characters in zip(batch.targets_BN, batch.character_lengths_B, strict=True):
            silent = targets[0] == recipe.tokens.no_speech
            assert silent == (characters == 0)
            seen.add(bool(silent))
    assert seen == {True, False}


def test_the_last_phase_has_whole_windows_with_times_inside_them(recipe: Recipe) -> None:
    batches = (recipe[step] for step in range(LONG, LONG + 60))
    batch = next(b for b in batches if b.mel_BFT.shape[-1] == WINDOW_SAMPLES // 160)
    times = batch.targets_BN[batch.targets_BN >= recipe.tokens.zero] - recipe.tokens.zero
    assert len(times)
    assert times.max() <= 1500


def test_packed_rows_are_full_of_speech_one_utterance_after_another(
    speech: Material, tokenizer: Tokenizer
) -> None:
    recipe = recipe_of(speech, tokenizer, num_steps=20, seconds=30, seed=3, curriculum=PACKED)
    spoken_s = whole_s = 0.0
    for step in range(20):
        batch = recipe[step]
        assert torch.equal(batch.spans_BN2, recipe[step].spans_BN2)
        assert (batch.profile.selection, batch.profile.sparsity) == ("stride", 0.5)
        row_s = batch.mel_BFT.shape[-1] / 100
        assert row_s <= PACKED_S + 0.02
        whole_s += batch.seconds
        for spans in batch.spans_BN2:
            said = spans[spans[:, 0] >= 0]
            assert (said[1:, 0] >= said[:-1, 1] - 1e-4).all()
            assert said.max() <= row_s
            spoken_s += float((said[:, 1] - said[:, 0]).sum())
    assert spoken_s > 0.6 * whole_s  # within a string of digits are gaps too


def test_frames_of_some_whole_windows_are_dropped_by_attention(
    speech: Material, tokenizer: Tokenizer
) -> None:
    mix = Mix(math.inf, 1.0, most_words=3, perturbed=0.0, winnowed_share=0.5)
    recipe = recipe_of(speech, tokenizer, num_steps=60, seconds=30, seed=3, curriculum=(mix,))
    profiles = [recipe[step].profile for step in range(60)]
    winnowed = [profile for profile in profiles if not profile.is_dense]
    assert 15 < len(winnowed) < 45
    assert {profile.selection for profile in winnowed} == {"attention"}
    assert {profile.layer for profile in winnowed} == {1, 2, 3, 4}
    assert all(0.2 <= profile.sparsity <= 0.8 for profile in winnowed)
    assert recipe[7].profile == profiles[7]


def test_a_mix_says_how_many_utterances_are_digits(speech: Material, tokenizer: Tokenizer) -> None:
    counts = {}
    for share in (0.0, 0.3, 1.0):
        mix = Mix(math.inf, 0.0, most_words=4, perturbed=0.0, digit_share=share)
        recipe = with_ticks(mix, speech, tokenizer, 10)
        batches = [recipe[step] for step in range(10)]
        counts[share] = sum(int((batch.characters == TICK).sum()) for batch in batches)
    assert counts[0.0] > counts[0.3] > counts[1.0] == 0


def test_a_mix_with_sentences_wants_a_source_of_them(
    speech: Material, tokenizer: Tokenizer
) -> None:
    mix = Mix(math.inf, 0.0, most_words=4, perturbed=0.0, digit_share=0.9)
    with pytest.raises(ValueError, match="no source of them"):
        recipe_of(speech, tokenizer, num_steps=1, seconds=4, seed=3, curriculum=(mix,))


@pytest.mark.parametrize("packed", [0.0, 1.0])
@pytest.mark.parametrize("alike", [0.0, 1.0])
def test_what_holds_several_utterances_is_of_one_kind_where_a_mix_says_so(
    speech: Material, tokenizer: Tokenizer, packed: float, alike: float
) -> None:
    mix = Mix(
        math.inf,
        1.0 - packed,
        most_words=4,
        perturbed=0.0,
        lone_share=0.0,
        packed_share=packed,
        digit_share=0.5,
        alike_share=alike,
    )
    recipe = with_ticks(mix, speech, tokenizer, 12)
    kinds = set()
    for step in range(12):
        batch = recipe[step]
        left = iter(batch.characters.tolist())
        for length in batch.character_lengths_B.tolist():
            said = set(itertools.islice(left, length)) - set(to_characters(" "))
            kinds |= {(TICK in said, bool(said - {TICK}))} if said else set()
    ticks, digits, mixed = (True, False), (False, True), (True, True)
    assert kinds >= {ticks, digits}
    assert (mixed in kinds) is (alike == 0)


def test_every_timed_word_is_a_segment_and_its_span_is_told(recipe: Recipe) -> None:
    zero, end = recipe.tokens.zero, recipe.tokens.end
    batches = [recipe[step] for step in range(20)]
    timed = 0
    for batch in batches:
        for targets, spans in zip(batch.targets_BN, batch.spans_BN2, strict=True):
            for at in range(2, len(targets) - 1):
                if 0 <= targets[at] < end or not (spans[at] >= 0).all():
                    continue
                assert targets[at] < zero, "a span belongs to a word"
            for at in range(1, len(targets) - 1):
                if targets[at - 1] >= zero and 0 <= targets[at] < zero and targets[at] != end:
                    begin, stop = (targets[[at - 1, at + 1]] - zero) * 0.02
                    assert torch.allclose(spans[at], torch.stack([begin, stop]), atol=0.011)
                    timed += 1
    assert timed > 20


def test_log_mel_is_the_feature_extractors() -> None:
    sound = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * 0.1
    extract = WhisperFeatureExtractor()
    expected = extract(sound, sampling_rate=16_000, padding=False, return_tensors="np")
    actual = log_mel_of(torch.from_numpy(sound)[None])
    np.testing.assert_allclose(actual[0], expected["input_features"][0], atol=1e-4)


def test_log_mel_is_the_services_but_for_the_end_of_what_is_not_padded() -> None:
    sound = np.random.default_rng(0).standard_normal(WINDOW_SAMPLES).astype(np.float32) * 0.1
    assert torch.equal(log_mel_of(torch.from_numpy(sound)[None]), log_mel([sound], 80))
    served, ours = log_mel([sound[:32_000]], 80), log_mel_of(torch.from_numpy(sound[:32_000])[None])
    assert ours.shape[-1] == 200
    torch.testing.assert_close(ours[..., :199], served[..., :199], atol=1e-6, rtol=0)
    # The last frame reaches past the end: what follows is the sound mirrored, or silence.
    assert (ours[..., 199] - served[..., 199]).abs().max() > 1e-3


def test_characters_leave_out_what_has_no_label() -> None:
    assert to_characters("A 1-b") == [1, 28, 2]


def test_the_rows_that_a_mix_masks_are_else_the_same(
    speech: Material, tokenizer: Tokenizer
) -> None:
    def batch(masked: float) -> TrainingBatch:
        mix = Mix(math.inf, 0.0, most_words=10, perturbed=0.0, packed_share=1.0, masked=masked)
        return recipe_of(speech, tokenizer, seconds=30, seed=3, num_steps=1, curriculum=(mix,))[0]

    bare, half, whole = (batch(share).mel_BFT for share in (0.0, 0.5, 1.0))
    assert (bare != whole).flatten(1).any(1).all()
    assert (bare == whole).float().mean() > 0.6
    some = (bare != half).flatten(1).any(1)
    assert some.any()
    assert not some.all()
