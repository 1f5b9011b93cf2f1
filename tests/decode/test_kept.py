"""What windows kept, as rows of any number read it: the attention that is defined, and no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from service.decode.kept import FRAMES, QUERIES_AT_ONCE, Kept, Window
from service.model.layers import merge_heads, split_heads
from service.model.operators.bags import ByteBags, FloatBags
from service.model.weights import CrossAttention, DecoderWeights
from tests.checkpoints import load_plain

KEPT = (130, 1, FRAMES, 200)  # rows of all lengths: a block's part, whole blocks, both


@pytest.fixture(scope="module")
def weights(mini_folder: Path) -> DecoderWeights:
    return load_plain(str(mini_folder)).weights.decoder


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def crosses_of(weights: DecoderWeights) -> list[CrossAttention]:
    return [layer.cross for layer in weights.layers]


def right(
    weights: DecoderWeights, states_TD: Tensor, query_HNK: Tensor, log_weights_T: Tensor | None
) -> Tensor:
    cross = weights.layers[0].cross
    key, value = (
        split_heads(each(states_TD[None]), weights.heads) for each in (cross.key, cross.value)
    )
    mask = None if log_weights_T is None else log_weights_T[None]
    return merge_heads(scaled_dot_product_attention(query_HNK[None], key, value, mask))[0]


@torch.inference_mode()
@pytest.mark.parametrize("new", [1, 3, QUERIES_AT_ONCE // len(KEPT) + 1])
@pytest.mark.parametrize("weighed", [False, True])
def test_rows_of_all_lengths_side_by_side(weights: DecoderWeights, new: int, weighed: bool) -> None:
    kept, width = Kept(weights), weights.positions_TD.shape[1]
    states = [drawn(length, width, seed=length) for length in KEPT]
    log_weights = [drawn(length).abs() if weighed else None for length in KEPT]
    windows = [
        kept.take(crosses_of(weights), *one) for one in zip(states, log_weights, strict=True)
    ]
    query_BHNK = drawn(len(KEPT), weights.heads, new, width // weights.heads)
    found = kept.attend(0, query_BHNK, kept.queries(windows))
    for one, states_TD, query, log_weights_T in zip(
        found, states, query_BHNK, log_weights, strict=True
    ):
        assert_close(one, right(weights, states_TD, query, log_weights_T), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_what_a_row_reads_does_not_depend_on_those_beside_it(weights: DecoderWeights) -> None:
    """To the last bit: a window's text must not."""
    eight = replace(weights, cross=ByteBags())
    kept, width = Kept(eight), weights.positions_TD.shape[1]
    windows = [kept.take(crosses_of(eight), drawn(length, width), None) for length in KEPT]
    query_BHNK = drawn(len(KEPT), weights.heads, 1, width // weights.heads)
    together = kept.attend(0, query_BHNK, kept.queries(windows))
    for number, window in enumerate(windows):
        alone = kept.attend(0, query_BHNK[number : number + 1], kept.queries([window]))
        assert torch.equal(alone[0], together[number])


def poisoned(kept: Kept, weights: DecoderWeights, states: Tensor) -> Window:
    return kept.take(crosses_of(weights), states * torch.nan, None)


@torch.inference_mode()
@pytest.mark.parametrize("make", [lambda w: w, lambda w: replace(w, cross=ByteBags())])
def test_a_window_of_nan_spoils_nobody_else(
    weights: DecoderWeights, make: Callable[[DecoderWeights], DecoderWeights]
) -> None:
    """Neither beside it nor after it, in the blocks that it had."""
    weights = make(weights)
    kept, width = Kept(weights), weights.positions_TD.shape[1]
    states = drawn(70, width)
    query_BHNK = drawn(2, weights.heads, 1, width // weights.heads)
    bad, good = poisoned(kept, weights, states), kept.take(crosses_of(weights), states, None)
    found = kept.attend(0, query_BHNK, kept.queries([bad, good]))
    assert found[0].isnan().all()
    assert found[1].isfinite().all()
    blocks = bad.blocks
    kept.leave(bad)
    after = kept.take(crosses_of(weights), states, None)
    assert sorted(after.blocks) == sorted(blocks)
    assert kept.attend(0, query_BHNK, kept.queries([after, good])).isfinite().all()


@torch.inference_mode()
def test_a_window_that_could_not_be_taken_leaves_nothing(weights: DecoderWeights) -> None:
    kept, width = Kept(weights), weights.positions_TD.shape[1]

    def fails(states_TD: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    crosses = crosses_of(weights)
    crosses[-1] = replace(crosses[-1], value=fails)  # type: ignore[arg-type]
    window = kept.take(crosses_of(weights), drawn(70, width), None)
    for _ in range(3):
        with pytest.raises(torch.OutOfMemoryError):
            kept.take(crosses, drawn(1500, width), None)
    kept.leave(window)
    assert kept.num_blocks == 0


@torch.inference_mode()
def test_tables_that_found_no_room_to_grow_are_as_they_were(
    weights: DecoderWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, width = Kept(weights), weights.positions_TD.shape[1]
    states = drawn(70, width)
    window = kept.take(crosses_of(weights), states, None)
    query_BHNK = drawn(1, weights.heads, 1, width // weights.heads)
    before, blocks = kept.attend(0, query_BHNK, kept.queries([window])), kept.num_blocks
    many = drawn(FRAMES * (blocks + 1), width)
    asked: list[int] = []

    def runs_out(self: FloatBags, num_rows: int, *_: object) -> Tensor:
        asked.append(num_rows)
        if len(asked) == 2:  # of keys there were enough
            raise torch.OutOfMemoryError
        return torch.empty(num_rows, FRAMES)

    with monkeypatch.context() as patched:
        patched.setattr(FloatBags, "new_table", runs_out)
        with pytest.raises(torch.OutOfMemoryError):
            kept.take(crosses_of(weights), many, None)
    assert kept.num_blocks == blocks
    assert torch.equal(kept.attend(0, query_BHNK, kept.queries([window])), before)
    other = kept.take(crosses_of(weights), states, None)
    assert torch.equal(kept.attend(0, query_BHNK, kept.queries([other])), before)
