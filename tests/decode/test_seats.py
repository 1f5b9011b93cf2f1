"""A GPU's decode batch: what it says is what packed rows say, whoever comes and goes.

Where there is no GPU its kernels are interpreted, and a graph is the same work done again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from service.decode.batch import WindowDecoder
from service.decode.gpu import is_right
from service.families.whisper import Whisper
from service.model.checkpoint import load_checkpoint
from service.model.protocol import WindowsFailedError
from service.profiles import Profile
from service.types import DecodeOptions, Encoded, Hypothesis
from tests.checkpoints import load_plain
from tests.windows import drain, noise

graphs = pytest.importorskip("service.decode.graphs")
seats = pytest.importorskip("service.decode.seats")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROFILES = [
    Profile("few", 1, 0.95),
    Profile("fewer", 1, 0.97),
    Profile("weighed", 1, 0.95, pool="mean", padding=50),
]
PLAIN = DecodeOptions("en")
PROMPTED = DecodeOptions("en", prompt=tuple(range(100, 120)))
NUM_TOKENS = 6


@pytest.fixture(scope="module")
def model(mini_folder: Path) -> Whisper:
    if DEVICE == "cpu":
        return Whisper(load_plain(str(mini_folder)))
    return Whisper(load_checkpoint(str(mini_folder), DEVICE, "float32"))


@pytest.fixture(scope="module")
def encoded(model: Whisper) -> list[Encoded]:
    return model.encode(noise(3), PROFILES, [1500, 1500, 100])


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter gains nothing from reading side by side."""
    monkeypatch.setattr(seats, "PROGRAMS", 1)


def new_batch(model: Whisper, *, seated: bool) -> WindowDecoder:
    weights, vocabulary = model.checkpoint.weights.decoder, model.checkpoint.vocabulary
    made = graphs.Graphs(weights, model.rules) if seated else None
    batch = WindowDecoder(weights, vocabulary, model.rules, 448, made)
    batch.token_limit = NUM_TOKENS
    return batch


def run(
    batch: WindowDecoder,
    encoded: Sequence[Encoded],
    options: Sequence[DecodeOptions],
    dropped: Collection[int] = (),
) -> dict[int, Hypothesis]:
    """The first window speaks alone, then all; those dropped leave in the middle."""
    batch.join([0], encoded[:1], options[:1])
    said = batch.step()
    batch.join(range(1, len(options)), encoded[1:], options[1:])
    said |= batch.step()
    batch.drop(dropped)
    return said | drain(batch)


def pages_of(batch: WindowDecoder, row: int) -> list[torch.Tensor]:
    assert isinstance(batch.cache, seats.SeatCache)
    pages: list[torch.Tensor] = batch.cache.window_pages(row)
    return pages


def assert_alike(ours: dict[int, Hypothesis], theirs: dict[int, Hypothesis]) -> None:
    assert ours.keys() == theirs.keys()
    for key, said in theirs.items():
        assert ours[key].tokens == said.tokens
        assert ours[key].token_logprobs == pytest.approx(said.token_logprobs, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ([PLAIN, PLAIN, PROMPTED], ()),
        ([PLAIN, PLAIN, PLAIN], (1,)),
        ([PLAIN, replace(PLAIN, beam_size=2), replace(PLAIN, temperature=0.5)], ()),
    ],
    ids=["as they are", "one is dropped", "beams and chance"],
)
def test_windows_say_what_they_say_in_packed_rows(
    model: Whisper, encoded: list[Encoded], options: list[DecodeOptions], dropped: tuple[int, ...]
) -> None:
    right = run(new_batch(model, seated=False), encoded, options, dropped)
    batch = new_batch(model, seated=True)
    assert_alike(run(batch, encoded, options, dropped), right)
    assert isinstance(batch.cache, seats.SeatCache)
    assert batch.cache.num_rows == 0
    assert batch.cache.num_pages == 1  # nobody's


def test_the_device_is_a_step_ahead_of_the_host(model: Whisper, encoded: list[Encoded]) -> None:
    batch = new_batch(model, seated=True)
    batch.join([0], encoded[:1], [PLAIN])
    batch.step()
    alone = new_batch(model, seated=False)
    alone.join([0], encoded[:1], [PLAIN])
    alone.step()
    assert batch.rows[0].tokens == alone.rows[0].tokens
    assert batch.cache.lengths == [alone.cache.lengths[0] + 1]


def test_a_full_context_is_not_read_beyond(
    model: Whisper, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last token's place is the last there is: a step ahead would have none."""
    weights, vocabulary = model.checkpoint.weights.decoder, model.checkpoint.vocabulary
    read: list[int] = []
    advanced = seats.SeatCache.advanced

    def watched(cache: Any, first_row: int, num_tokens: int) -> None:
        advanced(cache, first_row, num_tokens)
        read.extend(cache.lengths)

    monkeypatch.setattr(seats.SeatCache, "advanced", watched)
    said = []
    for made in (None, graphs.Graphs(weights, model.rules)):
        batch = WindowDecoder(weights, vocabulary, model.rules, 8, made)
        batch.token_limit = 8
        batch.join([0], encoded[:1], [PLAIN])
        said.append(drain(batch))
    assert_alike(said[1], said[0])
    assert max(read) == 8


@torch.inference_mode()
@pytest.mark.filterwarnings("ignore:All-NaN slice")  # the interpreter's
def test_what_fails_in_a_step_ahead_fails_once(model: Whisper, encoded: list[Encoded]) -> None:
    batch = new_batch(model, seated=True)
    batch.join([0, 9], [encoded[0], encoded[1]], [PLAIN, PLAIN])
    batch.step()
    pages_of(batch, 1)[0].fill_(torch.nan)
    failures = []
    said: dict[int, Hypothesis] = {}
    while len(batch):
        try:
            said |= batch.step()
        except WindowsFailedError as failed:
            failures.append(failed.keys)
    assert failures == [(9,)]
    alone = new_batch(model, seated=False)
    alone.join([0], encoded[:1], [PLAIN])
    assert_alike(said, drain(alone))


def test_a_seat_forgets_what_weighed_on_it(model: Whisper, encoded: list[Encoded]) -> None:
    batch = new_batch(model, seated=True)
    batch.join([7], encoded[2:], [PLAIN])
    batch.drop([7])
    batch.join([0], encoded[:1], [PLAIN])
    alone = new_batch(model, seated=False)
    alone.join([0], encoded[:1], [PLAIN])
    assert_alike(drain(batch), drain(alone))


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # the interpreter's
def test_a_window_that_ceases_to_be_a_number_fails_alone(
    model: Whisper, encoded: list[Encoded]
) -> None:
    broken = replace(encoded[0], states_TD=torch.full_like(encoded[0].states_TD, torch.nan))
    right = new_batch(model, seated=False)
    right.join([1], encoded[:1], [PLAIN])
    batch = new_batch(model, seated=True)
    with pytest.raises(WindowsFailedError) as failed:
        batch.join([9, 1], [broken, encoded[0]], [PLAIN, PLAIN])
    assert failed.value.keys == (9,)
    # Its pages are another's now: what it left there is read by nobody.
    batch.join([2], encoded[1:2], [PLAIN])
    right.join([2], encoded[1:2], [PLAIN])
    assert_alike(drain(batch), drain(right))


def test_more_windows_than_there_are_seats(
    model: Whisper, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seats, "SEATS_AT_FIRST", 2)
    monkeypatch.setattr(seats, "PAGES_AT_ONCE", 9)
    batch = new_batch(model, seated=True)
    assert isinstance(batch.cache, seats.SeatCache)
    assert batch.cache.num_seats == 2
    said = run(batch, [encoded[1]] * 4, [PLAIN] * 4)
    alone = new_batch(model, seated=False)
    alone.join([0], encoded[1:2], [PLAIN])
    (right,) = drain(alone).values()
    assert_alike(said, dict.fromkeys(range(4), right))


def test_what_finds_no_memory_leaves_no_trace(
    model: Whisper, encoded: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = new_batch(model, seated=True)
    batch.join([0], encoded[:1], [PLAIN])
    assert isinstance(batch.cache, seats.SeatCache)
    before, take = batch.cache.num_pages, seats.Arena.take

    def no_more(arena: Any, num: int) -> list[int]:
        if num == 2 * 7:  # what two windows may say; what they kept was there
            raise torch.OutOfMemoryError
        pages: list[int] = take(arena, num)
        return pages

    with monkeypatch.context() as patch:
        patch.setattr(seats.Arena, "take", no_more)
        with pytest.raises(torch.OutOfMemoryError):
            batch.join([1, 2], [encoded[1]] * 2, [PLAIN] * 2)
    assert batch.cache.num_pages == before
    alone = new_batch(model, seated=False)
    alone.join([0], encoded[:1], [PLAIN])
    assert_alike(drain(batch), drain(alone))


def test_half_the_frames_take_half_the_pages(model: Whisper) -> None:
    whole, half = (torch.zeros(1, kept, 128, device=DEVICE) for kept in (1500, 750))
    taken = []
    for states_1TD in (whole, half):
        cache = seats.SeatCache(model.checkpoint.weights.decoder)
        before = cache.num_pages
        cache.join([], states_1TD)
        taken.append(cache.num_pages - before)
    assert taken == [24 + 7, 12 + 7]
    assert model.info.block_frames == seats.PAGE


def test_what_is_not_right_is_found_out(model: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = model.checkpoint.weights.decoder
    make = partial(graphs.Graphs, weights, model.rules)
    assert is_right(make, weights, model.rules)
    real = seats.paged.attend

    def wrong(*given: object, **more: object) -> torch.Tensor:
        found: torch.Tensor = real(*given, **more)
        return found.roll(1, 0)

    monkeypatch.setattr(seats.paged, "attend", wrong)
    assert not is_right(make, weights, model.rules)


def test_a_cpu_packs(mini_folder: Path) -> None:
    assert Whisper(load_plain(str(mini_folder))).new_graphs is None
