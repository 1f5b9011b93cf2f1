"""What an encoder says when frames are dropped, and when its weights are rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from service.lab.packing import Item
from service.lab.reproduce.ctc.collapse import collapse, interpolated
from service.lab.reproduce.ctc.letters import spelled, text_of
from service.lab.reproduce.ctc.model import (
    CtcWeights,
    Thinning,
    log_probabilities,
    through_layers,
    through_one,
)
from service.lab.reproduce.ctc.rounding import Bits, rounded
from service.lab.reproduce.ctc.train import mel_of
from service.model.encoder import embed
from service.model.layers import norm
from service.text.wer import Pair, align, errors_of, word_errors, words_of

HALF, THIRD = 0.5, 1 / 3
PLAIN, BETWEEN = "as they are", "interpolated"
APART = (2, 3, 4)  # frames between kept ones from which a blank is assumed
WAYS = (PLAIN, BETWEEN, *(f"a blank from {apart} frames" for apart in APART))
PUBLISHED, LOCAL, STRIDE, MEAN = "attention", "local attention", "every n-th", "means"


@dataclass(frozen=True, slots=True)
class Heard:
    """By window: errors of words after Whisper's normaliser and of letters as they are spelled, and
    how many those are; words spelled with a double letter, and those said with a single one."""

    word_errors: tuple[int, ...]
    words: tuple[int, ...]
    letter_errors: tuple[int, ...]
    letters: tuple[int, ...]
    lost: tuple[int, ...]
    doubles: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """By window: the divergence of the labels' distribution from that of the encoder as it is,
    summed over frames; how many those are; the squared distance of the states, and their square."""

    divergence: tuple[float, ...]
    frames: tuple[int, ...]
    distance: tuple[float, ...]
    square: tuple[float, ...]


CHOICES = (PUBLISHED, LOCAL, STRIDE, MEAN)


def of_choice(choice: str, layer: int, sparsity: float, taps: str = "kept") -> Thinning:
    """By the name of a way to choose frames; local: each of 2 neighbours, or of 3 where that is
    what a share leaves whole."""
    within = 2 if sparsity == HALF else 3
    return {
        PUBLISHED: Thinning(layer, sparsity, taps=taps),
        LOCAL: Thinning(layer, sparsity, within=within, aggregation="max", taps=taps),
        STRIDE: Thinning(layer, sparsity, "stride", taps=taps),
        MEAN: Thinning(layer, sparsity, "mean", taps=taps),
    }[choice]


def choice_of(thinning: Thinning) -> str:
    """Its name."""
    same = (thinning.layer, thinning.sparsity, thinning.taps)
    return next(choice for choice in CHOICES if of_choice(choice, *same) == thinning)


def halves(num_layers: int) -> list[Thinning]:
    """Half of the frames after each layer, chosen in each way."""
    layers = range(1, num_layers + 1)
    return [of_choice(choice, layer, HALF) for layer in layers for choice in CHOICES]


def with_other_taps(lower: int, num_layers: int) -> list[Thinning]:
    """The same where convolutions follow, above so many `lower` layers, and reach over something
    else than kept neighbours."""
    return [
        of_choice(choice, layer, HALF, taps)
        for layer in range(max(1, lower), num_layers)
        for choice in (PUBLISHED, STRIDE)
        for taps in ("held", "apart")
    ]


def fewer_and_more(choice: str, layer: int) -> list[Thinning]:
    """A third and two thirds dropped, and every n-th beside it."""
    choices = dict.fromkeys((choice, STRIDE))
    return [of_choice(one, layer, share) for share in (THIRD, 2 * THIRD) for one in choices]


def heard(items: Sequence[Item], texts: Sequence[str]) -> Heard:
    """Texts against what is said in the items."""
    rows = [_counted(item.text, text) for item, text in zip(items, texts, strict=True)]
    return Heard(*(tuple(column) for column in zip(*rows, strict=True)))


@cache
def _counted(reference: str, said: str) -> tuple[int, int, int, int, int, int]:
    words, letters = words_of(reference), spelled(reference)
    pairs = align(letters, said)
    lost, doubles = _doubles(letters, said, pairs)
    return (
        word_errors(words, words_of(said)),
        len(words),
        errors_of(pairs, letters, said).total,
        len(letters),
        lost,
        doubles,
    )


def _doubles(letters: str, said: str, pairs: Sequence[Pair]) -> tuple[int, int]:
    """Double letters of which one is said and the other is not, and all of them."""
    heard_as = {i: said[j] for i, j in pairs if i is not None and j is not None}
    firsts = [i for i, (one, next_one) in enumerate(pairwise(letters)) if one == next_one]
    found = [{heard_as.get(i), heard_as.get(i + 1)} == {letters[i], None} for i in firsts]
    return sum(found), len(firsts)


class Listener:
    """An encoder and the windows that it hears, one at a time, as long as their audio is.

    What is the same for all that is asked is computed once: some 8 MB a window are held.
    """

    def __init__(self, weights: CtcWeights, items: Sequence[Item], num_mels: int) -> None:
        self._weights = weights
        self._items = items
        self._num_mels = num_mels
        self._after: list[list[Tensor]] = []  # states (1, T, D) of each window, by layers done

    @torch.inference_mode()
    def thinned(self, thinning: Thinning | None) -> dict[str, Heard]:
        """By way of dealing with positions; None: nothing is dropped."""
        texts: dict[str, list[str]] = {way: [] for way in WAYS}
        done = len(self._weights.encoder.layers) if thinning is None else thinning.layer - 1
        for states_1TD in self._states_after(done):
            states, positions_1k = through_layers(self._weights, states_1TD, thinning, done)
            logprobs_kL = log_probabilities(self._weights, states)[0]
            found = readings(logprobs_kL, positions_1k[0], states_1TD.shape[1])
            for way, text in found.items():
                texts[way].append(text)
        return {way: heard(self._items, some) for way, some in texts.items()}

    @torch.inference_mode()
    def rounded(self, bits: Bits) -> tuple[Moved, Heard]:
        as_it_is, other = self._weights, rounded(self._weights, bits)
        begins = self._states_after(as_it_is.lower)
        ends = self._states_after(len(as_it_is.encoder.layers))
        rows, texts = [], []
        for begin_1TD, end_1TD in zip(begins, ends, strict=True):
            right = norm(end_1TD, as_it_is.encoder.norm)
            found, _ = through_layers(other, begin_1TD, done=as_it_is.lower)
            right_TL, found_TL = (
                log_probabilities(as_it_is, states)[0] for states in (right, found)
            )
            each_T = (right_TL.exp() * (right_TL - found_TL)).sum(-1)
            distance, square = (found - right).square().sum(), right.square().sum()
            rows.append((float(each_T.sum()), len(each_T), float(distance), float(square)))
            labels = found_TL.argmax(-1).tolist()
            texts.append(text_of(collapse(labels, range(len(labels)))[0]))
        moved = Moved(*(tuple(column) for column in zip(*rows, strict=True)))
        return moved, heard(self._items, texts)

    def _states_after(self, done: int) -> list[Tensor]:
        """Of each window, with nothing dropped after so many layers."""
        if not self._after:
            mels = [mel_of(item, self._num_mels) for item in self._items]
            self._after.append([embed(self._weights.encoder, mel_1FT) for mel_1FT in mels])
        while len(self._after) <= done:
            number = len(self._after)
            self._after.append(
                [through_one(self._weights, number, states) for states in self._after[-1]]
            )
        return self._after[done]


def readings(logprobs_kL: Tensor, positions_k: Tensor, num_frames: int) -> dict[str, str]:
    """What kept frames say, by way of dealing with their positions."""
    labels, positions = logprobs_kL.argmax(-1).tolist(), positions_k.tolist()
    whole = interpolated(logprobs_kL, positions_k, num_frames).argmax(-1).tolist()
    said = [collapse(labels, positions)[0], collapse(whole, range(num_frames))[0]]
    said += [collapse(labels, positions, apart)[0] for apart in APART]
    return {way: text_of(some) for way, some in zip(WAYS, said, strict=True)}


def to_json(found: Any) -> Any:
    """Of what a `Listener` says."""
    if isinstance(found, dict):
        return {name: asdict(one) for name, one in found.items()}
    return [asdict(one) for one in found]


def heard_from_json(found: dict[str, dict[str, list[int]]]) -> dict[str, Heard]:
    return {
        way: Heard(**{name: tuple(some) for name, some in one.items()})
        for way, one in found.items()
    }


def rounded_from_json(found: list[dict[str, list[Any]]]) -> tuple[Moved, Heard]:
    moved, said = ({name: tuple(some) for name, some in one.items()} for one in found)
    return Moved(**moved), Heard(**said)
