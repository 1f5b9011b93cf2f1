"""Encoders read by CTC: they begin as Whisper's, and the collapse knows the clock."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from service.errors import ConfigError
from service.lab.reproduce.ctc import study
from service.lab.reproduce.ctc.collapse import collapse, interpolated
from service.lab.reproduce.ctc.letters import (
    BLANK,
    LETTERS,
    can_be_spelled,
    labels_of,
    spelled,
    text_of,
)
from service.lab.reproduce.ctc.model import (
    CtcWeights,
    Module,
    Thinning,
    convolve,
    encode,
    holders,
    log_probabilities,
    mapped,
    named_tensors,
    new_model,
    through_layers,
    through_lower,
)
from service.lab.reproduce.ctc.rounding import KINDS, MODULE, Bits, num_weights, rounded
from service.lab.reproduce.ctc.spell_out import frame_labels
from service.lab.reproduce.ctc.train import Recipe, Window, mel_of, train
from service.model import encoder
from service.model.layers import norm
from service.model.weights import EncoderWeights
from service.profiles import Profile
from service.types import Word
from tests.checkpoints import load_plain
from tests.lab.recordings import item, tone


@pytest.fixture(scope="module")
def whisper(mini_folder: Path) -> EncoderWeights:
    """Two layers of width 128."""
    return load_plain(str(mini_folder)).weights.encoder


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stirred(weights: CtcWeights) -> CtcWeights:
    """As if it had been trained: nothing in it is zero."""
    return mapped(weights, lambda at, tensor: tensor + 0.05 * drawn(*tensor.shape, seed=len(at)))


@pytest.fixture(scope="module")
def convolved(whisper: EncoderWeights) -> CtcWeights:
    return stirred(new_model(whisper, kernel=5, upper=2))


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("IT'S  WELL, he said.", "it's well he said"),
        ("'tis \"odd\" -- rock 'n' roll", "tis odd rock n roll"),
        ("the boys' don\N{RIGHT SINGLE QUOTATION MARK}t", "the boys don't"),
    ],
)
def test_text_is_spelled_and_comes_back(text: str, letters: str) -> None:
    assert spelled(text) == letters
    assert text_of(labels_of(letters)) == letters


def test_figures_cannot_be_spelled() -> None:
    assert can_be_spelled("twenty five")
    assert not can_be_spelled("25 men")
    assert BLANK not in labels_of(LETTERS)


def by_definition(labels: tuple[int, ...], positions: tuple[int, ...], apart: int) -> list[int]:
    """A blank put wherever frames are so far apart; then runs to one, and no blanks."""
    filled = [labels[0]]
    for (one, first), (_, second) in zip(
        zip(labels[1:], positions[1:], strict=True),
        zip(labels, positions, strict=False),
        strict=False,
    ):
        filled += [BLANK] * bool(apart and first - second >= apart) + [one]
    return [label for label, _ in itertools.groupby(filled) if label != BLANK]


@pytest.mark.parametrize("positions", [(0, 1, 2, 3, 4), (0, 2, 4, 6, 8), (1, 2, 5, 6, 9)])
@pytest.mark.parametrize("apart", [0, 2, 3, 4])
def test_the_collapse_is_that_of_the_definition(positions: tuple[int, ...], apart: int) -> None:
    for labels in itertools.product((BLANK, 1, 2), repeat=len(positions)):
        said, begins = collapse(labels, positions, apart)
        assert said == by_definition(labels, positions, apart)
        assert [labels[positions.index(at)] for at in begins] == said
        # Each kept state until the next one: as if nothing had been done.
        until_next = holders(torch.tensor(positions)[None], 11)[0]
        on_clock = torch.tensor(labels)[until_next].tolist()
        assert collapse(on_clock, range(11))[0] == collapse(labels, positions)[0]


def test_log_probabilities_go_in_lines() -> None:
    positions = torch.tensor([1, 2, 5, 8])
    kept = drawn(4, 3).log_softmax(-1)
    found = interpolated(kept, positions, 10)
    assert torch.equal(found[positions], kept)
    assert torch.allclose(found[3], kept[1] + (kept[2] - kept[1]) / 3, atol=1e-6)
    assert torch.equal(found[0], kept[0])
    assert torch.equal(found[9], kept[3])
    # The same label on both sides: no blank comes between, so no double letter comes back.
    same = torch.tensor([[0.2, 0.7, 0.1], [0.4, 0.5, 0.1]]).log()
    assert interpolated(same, torch.tensor([0, 6]), 7).argmax(-1).eq(1).all()


@pytest.mark.parametrize(("kernel", "upper"), [(1, 2), (15, 2), (15, 1)])
def test_it_begins_as_whispers_encoder(whisper: EncoderWeights, kernel: int, upper: int) -> None:
    mel = drawn(2, 80, 120)
    weights = new_model(whisper, kernel, upper)
    right, _ = encoder.encode(whisper, mel, Profile("dense"))
    found, positions = encode(weights, mel)
    assert torch.equal(found, right)
    assert torch.equal(positions[1], torch.arange(60))
    trained, _ = encode(stirred(weights), mel)
    assert not torch.allclose(trained, right, atol=1e-2)


def test_kernels_differ_in_their_taps_alone(whisper: EncoderWeights) -> None:
    one, many = (named_tensors(new_model(whisper, kernel, 2)) for kernel in (1, 5))
    changed = {at for at in one if one[at].shape != many[at].shape or not one[at].equal(many[at])}
    assert changed == {".modules.0.taps.weight", ".modules.1.taps.weight"}
    with pytest.raises(ValueError, match="4 has no middle"):
        new_model(whisper, 4, 2)
    with pytest.raises(ValueError, match="use 1 to 2"):
        new_model(whisper, 5, 3)


@pytest.mark.parametrize("choice", study.CHOICES)
@pytest.mark.parametrize("layer", [1, 2])
def test_nothing_dropped_is_dense_bit_for_bit(
    convolved: CtcWeights, choice: str, layer: int
) -> None:
    mel = drawn(1, 80, 90)
    for taps in ("kept", "held", "apart"):
        found, positions = encode(convolved, mel, study.of_choice(choice, layer, 0.0, taps))
        assert torch.equal(found, encode(convolved, mel)[0])
        assert len(positions[0]) == 45


@pytest.mark.parametrize("choice", study.CHOICES)
def test_half_is_dropped_where_it_is_said(convolved: CtcWeights, choice: str) -> None:
    mel = drawn(1, 80, 90)
    first, positions = encode(convolved, mel, study.of_choice(choice, 1, 0.5))
    last, _ = encode(convolved, mel, study.of_choice(choice, 2, 0.5))
    assert first.shape == last.shape == (1, 22, 128)
    assert positions[0].diff().min() > 0
    assert not torch.allclose(first, last)
    if choice == study.STRIDE:  # after the last layer it is what dense says there
        kept = torch.arange(22) * 45 // 22
        assert torch.equal(last[0], encode(convolved, mel)[0][0, kept])


def test_layers_below_the_modules_can_be_done_before(whisper: EncoderWeights) -> None:
    weights = stirred(new_model(whisper, 5, 1))
    mel = drawn(1, 80, 90)
    found, _ = through_layers(weights, through_lower(weights, mel), done=weights.lower)
    assert torch.equal(found, encode(weights, mel)[0])


def slowly(states: Tensor, module: Module, positions: list[int], frames: int, taps: str) -> Tensor:
    """The module, a kept state at a time."""
    gated = torch.nn.functional.glu(module.into(norm(states, module.norm)), -1)[0]
    kernel = module.taps.weight.shape[-1]
    assert module.taps.bias is not None
    made = []
    for place, at in enumerate(positions):
        mixed = module.taps.bias.clone()
        for tap in range(kernel):
            offset = tap - kernel // 2
            if taps == "kept":
                inside = 0 <= place + offset < len(positions)
                near = gated[place + offset] if inside else torch.zeros(len(mixed))
            elif not 0 <= at + offset < frames:
                near = torch.zeros(len(mixed))
            elif taps == "held":
                before = [n for n, p in enumerate(positions) if p <= at + offset]
                near = gated[before[-1] if before else 0]
            else:
                there = at + offset in positions
                near = gated[positions.index(at + offset)] if there else torch.zeros(len(mixed))
                near = near * frames / len(positions)
            mixed = mixed + module.taps.weight[:, 0, tap] * near
        made.append(mixed)
    whole = torch.nn.functional.silu(norm(torch.stack(made)[None], module.middle))
    return states + module.out(whole)


@pytest.mark.parametrize("taps", ["kept", "held", "apart"])
def test_taps_reach_over_what_is_said(convolved: CtcWeights, taps: str) -> None:
    positions, module = [1, 2, 5, 6, 9, 10], convolved.modules[0]
    states = drawn(1, len(positions), 128)
    found = convolve(states, module, torch.tensor([positions]), 12, taps)
    assert torch.allclose(found, slowly(states, module, positions, 12, taps), atol=1e-4)


@pytest.mark.parametrize("upper", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_kind_all_is_rounded_above_and_nothing_else(
    whisper: EncoderWeights, kind: str, upper: int
) -> None:
    weights = stirred(new_model(whisper, 5, upper))
    before, after = named_tensors(weights), named_tensors(rounded(weights, Bits((kind,), 4)))
    changed = {at for at in before if not torch.equal(before[at], after[at])}
    places = {MODULE: ".modules.", "attention": ".attention.", "feed-forward": ".mlp."}
    assert changed == {
        at
        for at, tensor in before.items()
        if places[kind] in at and tensor.dim() > 1 and (upper == 2 or "layers.0" not in at)
    }
    assert num_weights(weights, kind) == sum(before[at].numel() for at in changed)
    for at in changed:
        assert all(len(row.unique()) <= 15 for row in after[at].flatten(1))


@pytest.mark.parametrize("choice", study.CHOICES)
def test_a_listener_hears_what_the_encoder_says(convolved: CtcWeights, choice: str) -> None:
    items = [item("a", "all well", tone(440, 2)), item("b", "", tone(700, 1.5))]
    listener = study.Listener(convolved, items, 80)
    for thinning in (None, *(study.of_choice(choice, layer, 0.5) for layer in (1, 2))):
        said = []
        for one in items:
            mel = mel_of(one, 80)
            assert mel.shape[-1] == len(one.pcm) // 160
            states, positions = encode(convolved, mel, thinning)
            logprobs = log_probabilities(convolved, states)[0]
            said.append(study.readings(logprobs, positions[0], mel.shape[-1] // 2))
        found = listener.thinned(thinning)
        for way in study.WAYS:
            assert found[way] == study.heard(items, [each[way] for each in said])
    moved, _ = listener.rounded(Bits((), 4))
    assert moved.divergence == pytest.approx((0, 0), abs=1e-5)
    assert moved.frames == (100, 75)
    eight, four = (sum(listener.rounded(Bits(KINDS, n))[0].divergence) for n in (8, 4))
    assert 0 < eight < four


def test_errors_are_counted_and_lost_doubles_too() -> None:
    items = [item("a", "ALL WELL bee", tone(300, 1)), item("b", "no", tone(300, 1))]
    found = study.heard(items, ["al wfll bee", "no"])
    assert found.word_errors == (2, 0)
    assert found.words == (3, 1)
    assert found.letter_errors == (2, 0)
    assert found.letters == (12, 2)
    assert (found.lost, found.doubles) == ((1, 0), (3, 0))


class Stop(Exception):
    pass


def windows(count: int) -> list[Window]:
    return [
        Window(drawn(30 + n, 128, seed=n).half(), torch.tensor([3, 3, n + 1])) for n in range(count)
    ]


def test_training_goes_on_as_if_it_had_not_been_stopped(
    whisper: EncoderWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.lab.reproduce.ctc.train.SAVE_EVERY", 2)
    recipe = Recipe(steps=(3, 4), batch=(2, 1), mask_frames=4)
    start, stages = new_model(whisper, 5, 1), [windows(2), windows(3)]
    losses: list[float] = []
    whole = train(start, stages, recipe, tmp_path / "whole.pt", lambda n, loss: losses.append(loss))

    def stop(number: int, loss: float) -> None:
        assert loss == losses[number - 1]
        if number == 5:  # the last that is kept is the fourth
            raise Stop

    with pytest.raises(Stop):
        train(start, stages, recipe, tmp_path / "parts.pt", stop)
    seen: list[int] = []
    again = train(start, stages, recipe, tmp_path / "parts.pt", lambda n, loss: seen.append(n))
    assert seen == [5, 6, 7]
    right, found = named_tensors(whole), named_tensors(again)
    assert all(torch.equal(right[at], found[at]) for at in right)
    begun = named_tensors(start)
    stayed = {at for at in right if torch.equal(right[at], begun[at])}
    assert stayed == {
        at for at in right if at.startswith((".encoder.conv", ".encoder.pos", ".encoder.layers.0."))
    }
    # Done: what is held is given back, and nothing is needed for it.
    held_back = named_tensors(train(start, [], recipe, tmp_path / "parts.pt", stop))
    assert all(torch.equal(right[at], held_back[at]) for at in right)
    elsewhere = mapped(start, lambda at, tensor: tensor + 0.1)
    for other, by, of in (
        (start, Recipe((3, 5), (2, 1)), ""),
        (start, recipe, "other recordings"),
        (elsewhere, recipe, ""),
    ):
        with pytest.raises(ConfigError, match="is of other steps, recordings or another model"):
            train(other, stages, by, tmp_path / "parts.pt", stop, of=of)


def test_what_is_learned_is_said(whisper: EncoderWeights, tmp_path: Path) -> None:
    recipe = Recipe(steps=(150,), batch=(2,), rate=3e-3, masks=0)
    losses: list[float] = []
    stages = [windows(2)]
    start = new_model(whisper, 3, 1)
    weights = train(start, stages, recipe, tmp_path / "c.pt", lambda n, loss: losses.append(loss))
    assert losses[-1] < 0.2 < losses[0]
    for window in stages[0]:
        states, _ = through_layers(weights, window.states_TD.float()[None], done=1)
        labels = weights.head(states)[0].argmax(-1).tolist()
        assert collapse(labels, range(len(labels)))[0] == window.labels.tolist()


def test_letters_are_spread_over_their_words() -> None:
    words = [
        Word(0.04, 0.16, " All,", 1.0),
        Word(0.2, 0.2, " no", 1.0),
        Word(0.18, 0.5, " be", 1.0),
    ]
    found = frame_labels(words, 12)
    space = labels_of(" ")
    assert found[:2] == [BLANK, *space]
    assert text_of(found[2:8]) == "aallll"
    assert found[8:] == [*space, *labels_of("bbe")]


def test_a_letter_for_each_frame_is_learned(whisper: EncoderWeights, tmp_path: Path) -> None:
    told = [replace(one, labels_T=torch.arange(len(one.states_TD)) // 8) for one in windows(2)]
    recipe = Recipe(steps=(60,), batch=(2,), rate=3e-3, masks=0)
    weights = train(
        new_model(whisper, 3, 1), [told], recipe, tmp_path / "c.pt", lambda n, loss: None
    )
    for window in told:
        states, _ = through_layers(weights, window.states_TD.float()[None], done=1)
        assert window.labels_T is not None
        assert torch.equal(weights.head(states)[0].argmax(-1), window.labels_T)


def test_a_thinning_has_a_name() -> None:
    for choice in study.CHOICES:
        for share in (study.HALF, study.THIRD, 2 * study.THIRD):
            assert study.choice_of(study.of_choice(choice, 2, share, "held")) == choice
    assert study.of_choice(study.PUBLISHED, 2, 0.5) == Thinning(2, 0.5)
